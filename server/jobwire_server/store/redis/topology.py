"""Where the engine is and how it is reached. Standalone for now; Sentinel and Cluster will stand here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Connection, ConnectionPool

from jobwire_server.domain.limits import NAME
from jobwire_server.store.base import CannotOpen

ANSWER_WITHIN: Final = 3.0
"""Seconds for an answer; then the outcome is unknown, and the call is sent again."""

_TLS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})


@dataclass(frozen=True, slots=True)
class Address:
    """A store URL, taken apart."""

    url: str
    """For redis-py."""
    masked: str
    """For people: without the password."""
    prefix: str

    def told(self) -> Connection:
        """What redis-py makes of the URL: a connection that is not opened."""
        made: Connection = ConnectionPool.from_url(self.url).make_connection()  # type: ignore[no-untyped-call]  # left untyped
        return made


def parse(url: str) -> Address:
    """Takes `redis[s]://[user:password@]host[:port][/db][?prefix=jw]` apart. Raises CannotOpen."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise CannotOpen("the store URL begins with redis:// or rediss://")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = query.pop("prefix", "jw")
    if not NAME.fullmatch(prefix):
        raise CannotOpen("prefix= in the store URL is a name of letters, digits, '.', '_' and '-', 64 at most")
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
    return Address(urlunsplit((*parts[:3], urlencode(query), "")), masked, prefix)
