"""Where engines are, as a store URL says it: one, one that Sentinels know, or a Cluster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from redis.asyncio import Connection, ConnectionPool

from jobwire_server.domain.limits import NAME
from jobwire_server.store.base import CannotOpen

ANSWER_WITHIN: Final = 3.0
"""Seconds for an answer; then the outcome is unknown, and the call is sent again."""

_TLS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_FOR_SENTINELS: Final = frozenset({"sentinel_username", "sentinel_password"})


class Topology(StrEnum):
    """How the engine that holds the keys is found."""

    STANDALONE = ""
    """It is where the URL says."""
    SENTINEL = "sentinel"
    """Sentinels name it."""
    CLUSTER = "cluster"
    """Each node of the cluster knows who has the slot of the keys, which is one: they have one hash tag."""


_PORTS: Final = {Topology.STANDALONE: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}

SCHEMES: Final = {
    f"{scheme}{'+' if topology else ''}{topology}": (scheme, topology)
    for scheme in ("redis", "rediss")
    for topology in Topology
}
"""What a store URL of ours may begin with → how to speak, and to whom."""


_NO_HOST: Final = "a host or port in the store URL is none"


class Node(NamedTuple):
    """One process: an engine, or a Sentinel."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """A store URL, taken apart."""

    topology: Topology
    nodes: tuple[Node, ...]
    """The engine itself, the Sentinels, or some nodes of the cluster."""
    service: str
    """What Sentinels call the engine; empty without them."""
    masked: str
    """For people: without the password."""
    prefix: str
    replicas: int
    """So many must have a change before it counts as made."""
    scheme: str
    user: str
    """With the password, as it stands in the URL, an @ behind it; empty without."""
    sentinel_user: str
    """The same for Sentinels."""
    database: str
    options: str
    """Of TLS, as in the URL."""

    def url_of(self, node: Node) -> str:
        """Of this engine, for redis-py."""
        return f"{self.scheme}://{self.user}{node}{self.database}?{self.options}"

    def told(self, node: Node) -> Connection:
        """What redis-py makes of the URL: a connection to this engine that is not opened."""
        return _made_of(self.url_of(node))

    def told_of_sentinel(self, node: Node) -> Connection:
        """The same, to this Sentinel."""
        return _made_of(f"{self.scheme}://{self.sentinel_user}{node}?{self.options}")


def _made_of(url: str) -> Connection:
    made: Connection = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]  # left untyped
    return made


def parse(url: str) -> Address:
    """Takes a store URL apart. Raises CannotOpen.

    redis[s]://[user:password@]host[:port][/db]
    redis[s]+sentinel://[user:password@]host[:port][,host…]/service[/db]
    redis[s]+cluster://[user:password@]host[:port][,host…]
    each with [?prefix=jw][&replicas=0], options of TLS, and the login of Sentinels that ask for one of their own.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise CannotOpen(_NO_HOST) from None
    if parts.scheme not in SCHEMES:
        raise CannotOpen(f"the store URL begins with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    scheme, topology = SCHEMES[parts.scheme]
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = query.pop("prefix", "jw")
    if not NAME.fullmatch(prefix):
        raise CannotOpen("prefix= in the store URL is a name of letters, digits, '.', '_' and '-', 64 at most")
    replicas = query.pop("replicas", "0")
    if not (replicas.isascii() and replicas.isdigit() and int(replicas) < 10):
        raise CannotOpen("replicas= in the store URL is how many replicas must have a change, 0 to 9")
    login = {key: query.pop(key) for key in _FOR_SENTINELS & query.keys()} if topology is Topology.SENTINEL else {}
    if unknown := query.keys() - _TLS:
        raise CannotOpen(f"unknown in the store URL: {', '.join(sorted(unknown))}")
    user, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, _PORTS[topology]) for host in hosts.split(","))
    if len(nodes) > 1 and topology is Topology.STANDALONE:
        raise CannotOpen("several hosts in the store URL need redis+sentinel:// or redis+cluster://")
    service, database = _in_path(parts.path, topology)
    name, colon, _ = user.partition(":")
    shown_user = f"{name}{':***' if colon else ''}{at}"
    path = f"/{service}{database}" if service else database
    shown = {"prefix": prefix if prefix != "jw" else "", "replicas": replicas.lstrip("0")}
    shown_query = urlencode({name: value for name, value in shown.items() if value})
    return Address(
        topology=topology,
        nodes=nodes,
        service=service,
        masked=f"{parts.scheme}://{shown_user}{','.join(map(str, nodes))}{path}{shown_query and f'?{shown_query}'}",
        prefix=prefix,
        replicas=int(replicas),
        scheme=scheme,
        user=user + at,
        sentinel_user=_user(login.get("sentinel_username", ""), login.get("sentinel_password", "")),
        database=database,
        options=urlencode(query),
    )


def _node(text: str, port: int) -> Node:
    """Raises CannotOpen."""
    try:
        parts = urlsplit(f"//{text}")
        host, named = parts.hostname, parts.port
    except ValueError:
        raise CannotOpen(_NO_HOST) from None
    return Node(host or "127.0.0.1", port if named is None else named)


def _in_path(path: str, topology: Topology) -> tuple[str, str]:
    """The name of the service, and the database with its slash, or nothing. Raises CannotOpen."""
    service = ""
    path = path.rstrip("/")
    if topology is Topology.SENTINEL:
        service, slash, database = path.removeprefix("/").partition("/")
        path = slash + database
        if not service:
            raise CannotOpen("the store URL says after its hosts what the Sentinels call the service: …/mymaster")
    if path and not path[1:].isdigit():
        raise CannotOpen("the path in the store URL is the number of a database")
    if topology is Topology.CLUSTER and path not in ("", "/0"):
        raise CannotOpen("a cluster has no database but 0")
    return service, path


def _user(name: str, password: str) -> str:
    return f"{quote(name, safe='')}:{quote(password, safe='')}@" if name or password else ""
