"""Where a server is, and how to open channels to it with the settings that jobwire's streams need."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypedDict, Unpack, cast

import grpc

DEFAULT_TARGET: Final = "127.0.0.1:7272"

# A peer that is gone without a word is noticed within 30 s. The server allows a ping every 10 s.
# The channel's own reconnecting stays quicker than that of its users, who back off by themselves.
_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC heeds the one or the other, by its version; its own is a minute.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

Metadata = tuple[tuple[str, str], ...]


class ConnectOptions(TypedDict, total=False):
    """How to reach a server that asks for more than an address. PEM files by their path, or their content as bytes."""

    tls: bool
    """On by itself when `ca`, `cert` or `key` is given. Without `ca` the server's certificate must be a public one."""
    ca: str | Path | bytes
    """The certificates that may have signed the server's."""
    cert: str | Path | bytes
    """Our own certificate, where the server asks for one; with `key`."""
    key: str | Path | bytes
    token: str
    """Sent with each call as a bearer token; readable on the way unless the connection is TLS."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One server, or several that hold the same jobs: the first that answers is used."""

    target: str
    address: str
    """The same as gRPC wants it."""
    options: tuple[tuple[str, int | str], ...]
    credentials: grpc.ChannelCredentials | None
    metadata: Metadata

    @classmethod
    def to(cls, target: str, **connect: Unpack[ConnectOptions]) -> Self:
        """Reads the files; connects to nothing yet. `target` is HOST:PORT, several IP:PORT with commas between, or
        anything gRPC can resolve, such as `dns:///jobs.example.org:7272`. ValueError, OSError.
        """
        address, options = _resolved(target)
        token = connect.get("token", "")
        return cls(
            target=target,
            address=address,
            options=options,
            credentials=_credentials(connect),
            metadata=(("authorization", f"Bearer {token}"),) if token else (),
        )

    def open(self) -> grpc.aio.Channel:
        """For the event loop it is called in."""
        if self.credentials is None:
            channel = grpc.aio.insecure_channel(self.address, options=self.options)
        else:
            channel = grpc.aio.secure_channel(self.address, self.credentials, options=self.options)
        return cast("grpc.aio.Channel", _Bearing(channel, self.metadata)) if self.metadata else channel

    def open_for_threads(self) -> grpc.Channel:
        """On a connection of its own: one that a stopped event loop has left full holds up no heartbeat."""
        options = (*self.options, ("grpc.use_local_subchannel_pool", 1))
        if self.credentials is None:
            channel = grpc.insecure_channel(self.address, options=options)
        else:
            channel = grpc.secure_channel(self.address, self.credentials, options=options)
        return cast("grpc.Channel", _Bearing(channel, self.metadata)) if self.metadata else channel


class _Bearing:
    """A channel whose calls carry metadata, for what the stubs need of one. gRPC's interceptors cost a task per call,
    its call credentials refuse connections without TLS."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel, metadata: Metadata) -> None:
        self._channel = channel
        self._metadata = metadata
        self.close = channel.close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cast("grpc.aio.Channel", self._channel).close()

    def unary_unary(self, *method: Any, **serializers: Any) -> Callable[..., Any]:
        return partial(self._channel.unary_unary(*method, **serializers), metadata=self._metadata)

    def unary_stream(self, *method: Any, **serializers: Any) -> Callable[..., Any]:
        return partial(self._channel.unary_stream(*method, **serializers), metadata=self._metadata)


def _resolved(target: str) -> tuple[str, tuple[tuple[str, int | str], ...]]:
    if "," not in target or "://" in target:
        return target, _OPTIONS
    addresses = [address.strip() for address in target.split(",")]
    versions = set()
    for address in addresses:
        host = address.rpartition(":")[0].strip("[]")
        try:
            versions.add(ipaddress.ip_address(host).version)
        except ValueError:
            raise ValueError(
                f"{address!r}: of several servers each needs IP:PORT; or give one name of them all"
            ) from None
    if len(versions) > 1:
        raise ValueError(f"{target!r}: IPv4 and IPv6 do not mix")
    # Else the list would be sent as the name of the server.
    return f"ipv{versions.pop()}:{','.join(addresses)}", (*_OPTIONS, ("grpc.default_authority", addresses[0]))


def _credentials(connect: ConnectOptions) -> grpc.ChannelCredentials | None:
    files = [_pem(connect.get("ca")), _pem(connect.get("key")), _pem(connect.get("cert"))]
    ca, key, cert = files
    if (key is None) != (cert is None):
        raise ValueError("`cert` and `key` belong together")
    is_secure = connect.get("tls", any(pem is not None for pem in files))
    if not is_secure and any(pem is not None for pem in files):
        raise ValueError("`tls` is off, and there are certificates for it")
    return grpc.ssl_channel_credentials(ca, key, cert) if is_secure else None


def _pem(file: str | Path | bytes | None) -> bytes | None:
    return file if file is None or isinstance(file, bytes) else Path(file).read_bytes()
