"""Where the engine is and how it is reached. Standalone for now; Sentinel and Cluster will stand here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError  # noqa: A004  # its name in redis-py

from jobwire_server.domain.limits import NAME
from jobwire_server.store.base import CannotOpen

ANSWER_WITHIN: Final = 3.0
"""Seconds for an answer; then the outcome is unknown, and the call is sent again."""

_POOL: Final = 64
_TLS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})


@dataclass(frozen=True, slots=True)
class Address:
    """A store URL, taken apart."""

    url: str
    """For redis-py."""
    masked: str
    """For people: without the password."""
    prefix: str
    pool: int
    """Connections at most."""

    def connect(self) -> Redis:
        """A client that connects when it is first used, and never sends anything twice by itself: its callers know
        which call repeats harmlessly."""
        pool = BlockingConnectionPool.from_url(
            self.url,
            max_connections=self.pool,
            timeout=ANSWER_WITHIN,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ANSWER_WITHIN,
            socket_connect_timeout=ANSWER_WITHIN,
            socket_keepalive=True,
            protocol=2,
        )
        pool.connection_class = _ENDING[pool.connection_class]
        return Redis.from_pool(pool)


class _Ending:
    """A connection that says so when it has ended. uvloop answers a write to one that has just been lost with a
    RuntimeError, which redis-py hands on as it is, and which nobody takes for an outage."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]  # a mixin: what it stands before
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error


class _Plain(_Ending, Connection):
    pass


class _Secure(_Ending, SSLConnection):
    pass


_ENDING: Final[Mapping[type, type]] = {Connection: _Plain, SSLConnection: _Secure}


def parse(url: str) -> Address:
    """Takes `redis[s]://[user:password@]host[:port][/db][?prefix=jw&pool=64]` apart. Raises CannotOpen."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise CannotOpen("the store URL begins with redis:// or rediss://")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = query.pop("prefix", "jw")
    pool = query.pop("pool", str(_POOL))
    if not NAME.fullmatch(prefix):
        raise CannotOpen("prefix= in the store URL is a name of letters, digits, '.', '_' and '-', 64 at most")
    if not pool.isascii() or not pool.isdigit() or int(pool) < 1:
        raise CannotOpen("pool= in the store URL is the number of connections, 1 at least")
    if unknown := query.keys() - _TLS:
        raise CannotOpen(f"unknown in the store URL: {', '.join(sorted(unknown))}")
    try:
        host, port = parts.hostname or "127.0.0.1", parts.port or 6379
    except ValueError:
        raise CannotOpen("the port in the store URL is no number of a port") from None
    path = parts.path.rstrip("/")
    if path and not path[1:].isdigit():
        raise CannotOpen("the path in the store URL is the number of a database")
    shown_host = f"[{host}]" if ":" in host else host
    user = f"{parts.username or ''}:***@" if parts.password else f"{parts.username}@" if parts.username else ""
    shown_query = "" if prefix == "jw" else f"prefix={prefix}"
    masked = urlunsplit((parts.scheme, f"{user}{shown_host}:{port}", path, shown_query, ""))
    return Address(urlunsplit((*parts[:3], urlencode(query), "")), masked, prefix, int(pool))
