"""The way to a webhook's receiver: one POST, to an address that may be spoken to.

A URL comes from whoever creates jobs, and must not reach what only this machine or its network can reach. So the
address is judged, not the name: it is looked up once, and the one that was judged is the one that is connected to. No
redirect is followed, and of the answer no more than its head is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HEAD: Final = 16 * 1024
"""Bytes that the head of an answer may have."""
_ADDRESSES: Final = 3
"""Of one host, so many are tried."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}


class AddressRefused(Exception):
    """Everything that the host's name stands for is an address that this server does not speak to."""


class Unanswered(Exception):
    """The receiver did not answer in HTTP; the message says what happened instead."""


class Receivers:
    """Where webhooks may go: to every public address, and to these networks."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed
        self._tls = ssl.create_default_context()
        self._agent = f"jobwire/{version('jobwire')}"

    def allows(self, address: Address) -> bool:
        if any(address in network for network in self._allowed if network.version == address.version):
            return True
        inside = _inside(address)
        if inside is not None:
            return self.allows(inside)
        return address.is_global and not address.is_multicast

    async def post(self, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> int:
        """The status of the answer. Raises AddressRefused, or Unanswered. It knows no end: give it a timeout."""
        to = urlsplit(url)
        try:
            reader, writer = await self._connect(to)
            try:
                return await self._exchange(to, headers, body, reader, writer)
            finally:
                writer.transport.abort()
        except (OSError, UnicodeError, h11.ProtocolError) as error:
            raise Unanswered(_told(error)) from error

    async def _connect(self, to: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = to.hostname or "", to.port or _PORTS[to.scheme]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(where[0]) for *_, where in found))
        may_be_spoken_to = [each for each in addresses if self.allows(ipaddress.ip_address(each))]
        if not may_be_spoken_to:
            raise AddressRefused(f"{host} is at no address that this server speaks to")
        failed: OSError | None = None
        for address in may_be_spoken_to[:_ADDRESSES]:
            tls = {"ssl": self._tls, "server_hostname": host} if to.scheme == "https" else {}
            try:
                return await asyncio.open_connection(address, port, **tls)  # type: ignore[arg-type]  # one of two shapes
            except OSError as error:
                failed = error
        assert failed is not None, "there was an address to try"
        raise failed

    async def _exchange(
        self,
        to: SplitResult,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> int:
        wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        own = [
            ("host", to.netloc),
            ("user-agent", self._agent),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        target = (to.path or "/") + (f"?{to.query}" if to.query else "")
        request = h11.Request(method="POST", target=target, headers=[*own, *headers])
        for part in (request, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(wire.send(part) or b"")
        await writer.drain()
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await reader.read(_HEAD))
            elif isinstance(event, h11.Response):
                return event.status_code
            elif not isinstance(event, h11.InformationalResponse):
                raise Unanswered("it closed the connection without an answer")


def _inside(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 one stands for, by one of the ways of passing from one net to the other."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


def _told(error: Exception) -> str:
    """What happened, in words that hold nothing of what was sent or answered."""
    match error:
        case socket.gaierror() | UnicodeError():  # the latter of what can be no name
            return "its name cannot be resolved"
        case ssl.SSLCertVerificationError():
            return f"its certificate was refused: {error.verify_message}"
        case ssl.SSLError():
            return "it does not speak TLS as we do"
        case OSError():
            return f"it cannot be reached: {error.strerror or type(error).__name__}"
        case _:
            return "it does not speak HTTP"
