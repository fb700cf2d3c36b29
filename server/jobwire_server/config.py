"""The server's settings."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Final

from jobwire_server.domain.limits import KIB, Limits

DEFAULT_STORE = "sqlite:///jobwire.db"
DEFAULT_LISTEN = "127.0.0.1:7272"
HTTP_ABOVE = 1000
"""How far the port of HTTP stands above that of gRPC where nothing else is said."""


_LIMITS: Final = {
    "max_payload_bytes": ("payload", 768 * KIB),  # a job with a result as large fits into one message
    "max_http_bytes": ("headers", 64 * KIB),
    "max_error_bytes": ("error_text", 16 * KIB),  # a job keeps those of its last attempts
    "max_labels": ("labels", 64),
    "max_label_bytes": ("label_size", KIB),
    "max_streams_per_principal": ("streams_per_principal", 1_000_000),
    "max_concurrent_calls": ("calls_in_flight", 1_000_000),
}
"""Those that can be set, as GetServerInfo calls them: their name here, and the most that will do. Clients rely on the
others: on how many items go into a batch, say."""


class ConfigError(Exception):
    """A setting that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the server can be told. `cli.py` fills it from flags and environment."""

    store: str = DEFAULT_STORE
    listen: str = DEFAULT_LISTEN
    http: str | None = None
    """None = the host of `listen`, HTTP_ABOVE its port, or a free one where that is 0; "off" = there is none."""
    processes: int = 1
    """How many share the port; more than one only where the store is a server of its own."""
    insecure: bool = False
    """Serve without TLS or login on an address that others can reach."""
    tokens: str = ""
    """A TOML file of principals and the digests of their tokens; empty = there are none."""
    tls_cert: str = ""
    """A file in PEM: our certificate, and those between it and one that clients trust. Empty = no TLS."""
    tls_key: str = ""
    """Its key."""
    tls_client_ca: str = ""
    """A file in PEM of what has signed the certificates of clients; empty = they need none."""
    reflection: bool | None = None
    """None = on where only this machine can reach the server."""
    drain_timeout: float = 10.0
    """Seconds that calls under way are given when the server stops."""
    webhook_secrets: str = ""
    """A TOML file of signing secrets; empty = there are none."""
    webhook_allow: str = ""
    """Networks, with commas between them, that webhooks may reach beside the public addresses."""
    limits: Limits = field(default_factory=Limits)
    """`read_limits` makes them of what a person writes."""

    def __post_init__(self) -> None:
        if not 0 <= self.drain_timeout <= 3600:  # nan as well
            raise ConfigError(f"--drain-timeout {self.drain_timeout}: expected seconds, 0 to 3600")
        if self.processes > 1 and not self.store.startswith("redis"):
            raise ConfigError(
                f"--processes {self.processes}: a SQLite file belongs to one process; several share a Redis or Valkey"
            )
        _ = self.webhook_networks  # looked at, they are checked
        http = self.http_address
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert and --tls-key belong together")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError("--tls-client-ca: clients show certificates by TLS only: --tls-cert and --tls-key too")
        if self.is_open:
            self._check_open("--listen", self.listen)
        if http is not None and not is_loopback(http):
            self._check_open("--http", http)

    def _check_open(self, setting: str, address: str) -> None:
        if self.missing and not self.insecure:
            raise ConfigError(
                f"{setting} {address}: others can reach this address, and there is {' and '.join(self.missing)};"
                " give that, or listen on 127.0.0.1, or say --insecure if the network around it is yours"
            )

    @property
    def missing(self) -> list[str]:
        """What it takes to be reached by others, as far as it is not there."""
        tls = [] if self.tls_cert else ["no TLS (--tls-cert, --tls-key)"]
        return tls if self.has_login else [*tls, "no login (--tokens, or --tls-client-ca)"]

    @property
    def has_login(self) -> bool:
        """Whoever calls has to show who he is."""
        return bool(self.tokens or self.tls_client_ca)

    @property
    def is_open(self) -> bool:
        """Others than this machine can reach it."""
        return not is_loopback(self.listen)

    @property
    def http_address(self) -> str | None:
        """Where to serve HTTP; None = nowhere. Raises ConfigError."""
        if self.http == "off":
            return None
        if self.http is not None:
            split_address(self.http, setting="--http", example="127.0.0.1:8272")
            return self.http
        _, port = split_address(self.listen)
        host, _, _ = self.listen.rpartition(":")
        if port > 65535 - HTTP_ABOVE:
            raise ConfigError(f"--listen {self.listen}: there is no port {port + HTTP_ABOVE} for HTTP; say --http too")
        return f"{host}:{port + HTTP_ABOVE if port else 0}"

    @property
    def webhook_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Raises ConfigError."""
        try:
            return [ipaddress.ip_network(each.strip()) for each in self.webhook_allow.split(",") if each.strip()]
        except ValueError as error:
            raise ConfigError(f"--webhook-allow: {error}; expected networks such as 10.0.0.0/8,127.0.0.1") from error

    @property
    def serves_reflection(self) -> bool:
        return not self.is_open if self.reflection is None else self.reflection


def read_limits(text: str) -> Limits:
    """The limits in force where `name=number,…` says otherwise than the defaults. Raises ConfigError."""
    given = {}
    for each in filter(None, map(str.strip, text.split(","))):
        name, _, number = map(str.strip, each.partition("="))
        if name not in _LIMITS:
            raise ConfigError(f"--limits: {name} cannot be set; there are {', '.join(_LIMITS)}")
        field, most = _LIMITS[name]
        if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= most):
            raise ConfigError(f"--limits {each}: expected {name}=N, and N from 1 to {most}")
        given[field] = int(number)
    return replace(Limits(), **given)


def split_address(address: str, *, setting: str = "--listen", example: str = DEFAULT_LISTEN) -> tuple[str, int]:
    """`host:port` in its parts; an IPv6 host stands in brackets."""
    host, colon, port = address.rpartition(":")
    has_brackets = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not has_brackets) or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{setting} {address}: expected HOST:PORT, such as {example} or [::1]:7272")
    return (host[1:-1] if has_brackets else host), int(port)


def is_loopback(address: str) -> bool:
    """Nobody but this machine can reach it."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
