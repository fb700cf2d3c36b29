"""Which addresses a webhook may go to, however they are written."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.receiver import receiving

from jobwire_server.service.receivers import AddressRefused, Receivers, Unanswered

CERTIFICATE: Final = Path(__file__).with_name("localhost.pem")
"""Of tests alone, with its key; valid for a century."""

PRIVATE = [
    *(
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
    ),
    *("224.0.0.1", "239.255.255.250", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2001:0:7f00:1:0:0:f5ff:fffe"),
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_only_this_machine_or_its_network_reaches_is_refused(address: str) -> None:
    assert not Receivers().allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert Receivers().allows(ipaddress.ip_address(address))


def test_a_network_that_is_allowed_is_allowed_in_every_spelling_and_no_other_is() -> None:
    receivers = Receivers([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
    allowed = ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00::1")
    assert all(receivers.allows(ipaddress.ip_address(address)) for address in allowed)
    assert not any(receivers.allows(ipaddress.ip_address(address)) for address in ("192.168.0.1", "127.0.0.1"))


async def test_a_name_that_changes_its_address_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """First it points to where we may go, then to where we may not: it is connected to where it was judged."""
    looked_up: list[str] = []

    async def rebinding(host: str, port: int, **_: Any) -> list[Any]:
        looked_up.append(host)
        address = "127.0.0.2" if len(looked_up) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding)
    receivers = Receivers([ipaddress.ip_network("127.0.0.2/32")])
    with receiving() as receiver:
        with pytest.raises(Unanswered):  # nobody listens there
            await receivers.post(f"http://rebinding.example:{receiver.port}/", [], b"{}")
        with pytest.raises(AddressRefused):
            await receivers.post(f"http://rebinding.example:{receiver.port}/", [], b"{}")
        assert receiver.received == []
    assert looked_up == ["rebinding.example"] * 2, "once for each POST"


async def test_addresses_that_may_not_be_spoken_to_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(_: str, port: int, **__: Any) -> list[Any]:
        addresses = ("10.0.0.1", "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    with receiving() as receiver:
        receivers = Receivers([ipaddress.ip_network("127.0.0.0/8")])
        assert await receivers.post(f"http://both.example:{receiver.port}/a?b=c", [("x", "y")], b"{}") == 204
        (one,) = receiver.received
    assert (one.path, one.headers["host"], one.headers["x"]) == ("/a?b=c", f"both.example:{receiver.port}", "y")


async def test_of_an_answer_no_more_than_its_head_is_read() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while sent < 1 << 30:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()
                sent += 0x10000
        except ConnectionError:
            return

    receivers = Receivers([ipaddress.ip_network("127.0.0.0/8")])
    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await receivers.post(f"http://127.0.0.1:{port}/", [], b"{}") == 201
    assert sent < 1 << 26


async def test_a_head_without_end_is_no_answer() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"x-more: and more\r\n" * 100)
                await writer.drain()
        except ConnectionError:
            return

    receivers = Receivers([ipaddress.ip_network("127.0.0.0/8")])
    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unanswered, match="does not speak HTTP"):
            await receivers.post(f"http://127.0.0.1:{port}/", [], b"{}")


@pytest.fixture
async def tls_port() -> AsyncIterator[int]:
    """A receiver that speaks TLS and is called `localhost`, by a certificate that nobody else has signed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_receiver_whose_certificate_is_trusted_is_told(tls_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    receivers = Receivers([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1")])
    assert await receivers.post(f"https://localhost:{tls_port}/", [], b"{}") == 204


async def test_a_certificate_that_is_not_trusted_is_refused(tls_port: int) -> None:
    receivers = Receivers([ipaddress.ip_network("127.0.0.0/8")])
    with pytest.raises(Unanswered, match="its certificate was refused"):
        await receivers.post(f"https://localhost:{tls_port}/", [], b"{}")


async def test_a_certificate_of_another_name_is_refused(tls_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def here(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", here)
    receivers = Receivers([ipaddress.ip_network("127.0.0.0/8")])
    with pytest.raises(Unanswered, match="its certificate was refused"):
        await receivers.post(f"https://other.example:{tls_port}/", [], b"{}")
