"""The proxy fails as it is told, and otherwise not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from tests.faults.proxy import Fault, Proxy


class Echo:
    """A server that answers each line with itself, and remembers what has come."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.hears = asyncio.Condition()
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                async with self.hears:
                    self.hears.notify_all()
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass  # its client has gone
        finally:
            writer.close()

    async def has_heard(self, line: bytes) -> None:
        async with asyncio.timeout(5), self.hears:
            await self.hears.wait_for(lambda: line in self.heard)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.answer, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with server:
        yield echo


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with Proxy(echo.port) as proxy:
        yield proxy


class Line:
    """A client's connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, line: bytes) -> None:
        self.writer.write(line)
        await self.writer.drain()

    async def ask(self, line: bytes) -> bytes:
        await self.say(line)
        async with asyncio.timeout(5):
            return await self.reader.readline()

    async def stays_silent(self) -> bool:
        """Nothing comes; not even an end. What would come over loopback would be there in a moment."""
        try:
            async with asyncio.timeout(0.05):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def contains(wanted: bytes, request: bytes) -> bool:
    return wanted in request


def noticed(proxy: Proxy) -> asyncio.Event:
    """Set when a request comes; harms nothing."""
    seen = asyncio.Event()

    def look(_: bytes) -> bool:
        seen.set()
        return False

    proxy.strike(Fault.RESET, look)
    return seen


async def test_it_passes_on_what_comes_and_ends_when_the_client_does(proxy: Proxy, echo: Echo) -> None:
    async with connected(proxy) as line:
        assert [await line.ask(b"a\n"), await line.ask(b"b\n")] == [b"a\n", b"b\n"]
        long = b"x" * 50_000 + b"\n"
        assert await line.ask(long) == long
        line.writer.write_eof()
        assert await line.reader.read() == b""
    assert proxy.requests == 3


async def test_all_of_a_long_answer_comes_although_the_server_ends_at_once() -> None:
    answer = b"x" * 5_000_000

    async def answer_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(answer_and_end, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Proxy(port) as proxy, connected(proxy) as line:
        await line.say(b"?\n")
        assert await line.reader.read() == answer


async def test_an_answer_is_held_back_for_the_delay(proxy: Proxy, echo: Echo) -> None:
    proxy.delay = 3600
    async with connected(proxy) as line:
        await line.say(b"a\n")
        await echo.has_heard(b"a\n")
        assert await line.stays_silent()
    proxy.delay = 0.001
    async with connected(proxy) as line:
        assert await line.ask(b"b\n") == b"b\n"


async def test_a_delayed_request_arrives_although_its_client_has_gone(proxy: Proxy, echo: Echo) -> None:
    proxy.request_delay = 0.02
    async with connected(proxy) as line:
        await line.say(b"late\n")
    await echo.has_heard(b"late\n")


async def test_a_reset_breaks_every_connection_and_new_ones_work(proxy: Proxy) -> None:
    async with connected(proxy) as first, connected(proxy) as second:
        await first.ask(b"a\n")
        await second.ask(b"b\n")
        proxy.reset()
        for line in (first, second):
            with pytest.raises(ConnectionResetError):
                await line.reader.read()
    async with connected(proxy) as third:
        assert await third.ask(b"c\n") == b"c\n"


async def test_while_a_reset_stands_no_connection_lasts(proxy: Proxy, echo: Echo) -> None:
    proxy.stand(Fault.RESET)
    async with connected(proxy) as line:
        with pytest.raises(ConnectionResetError):
            await line.ask(b"a\n")
    proxy.heal()
    async with connected(proxy) as line:
        assert await line.ask(b"b\n") == b"b\n"
    assert echo.heard == [b"b\n"]


async def test_a_struck_request_is_not_passed_on(proxy: Proxy, echo: Echo) -> None:
    strike = proxy.strike(Fault.RESET)
    async with connected(proxy) as line:
        with pytest.raises(ConnectionResetError):
            await line.ask(b"a\n")
    assert strike.struck.is_set()
    async with connected(proxy) as line:
        assert await line.ask(b"b\n") == b"b\n"
    assert echo.heard == [b"b\n"]


async def test_a_half_open_connection_is_accepted_and_never_answered(proxy: Proxy, echo: Echo) -> None:
    async with connected(proxy) as old:
        await old.ask(b"before\n")
        proxy.stand(Fault.SILENCE)
        async with connected(proxy) as new:
            for line in (old, new):
                await line.say(b"lost\n")
                assert await line.stays_silent()
            proxy.heal()
            for line in (old, new):
                with pytest.raises(ConnectionResetError):
                    await line.reader.read()
    assert echo.heard == [b"before\n"]


async def test_silence_needs_no_server(echo: Echo) -> None:
    async with Proxy(1) as proxy:
        proxy.stand(Fault.SILENCE)
        async with connected(proxy) as line:
            await line.say(b"a\n")
            assert await line.stays_silent()


async def test_a_connection_that_said_nothing_in_the_silence_goes_on_after_it(proxy: Proxy) -> None:
    async with connected(proxy) as line:
        await line.ask(b"a\n")
        proxy.stand(Fault.SILENCE)
        proxy.heal()
        assert await line.ask(b"b\n") == b"b\n"


async def test_an_answer_under_way_is_lost_in_the_silence(proxy: Proxy, echo: Echo) -> None:
    seen = noticed(proxy)
    proxy.request_delay = 0.01
    async with connected(proxy) as line:
        await line.say(b"a\n")
        await seen.wait()
        proxy.stand(Fault.SILENCE)
        await echo.has_heard(b"a\n")
        assert await line.stays_silent()


async def test_a_lost_reply_has_happened_and_its_client_cannot_know(proxy: Proxy, echo: Echo) -> None:
    strike = proxy.strike(Fault.LOSE_REPLY)
    async with connected(proxy) as line:
        with pytest.raises(ConnectionResetError):
            await line.ask(b"a\n")
    assert strike.struck.is_set()
    assert echo.heard == [b"a\n"]
    async with connected(proxy) as line:
        assert await line.ask(b"a\n") == b"a\n"
    assert echo.heard == [b"a\n", b"a\n"]


async def test_all_of_a_pipeline_happens_when_its_reply_is_lost(proxy: Proxy, echo: Echo) -> None:
    lines = [b"%d\n" % n for n in range(2_000)]
    proxy.strike(Fault.LOSE_REPLY)
    async with connected(proxy) as line:
        with pytest.raises(ConnectionResetError):
            await line.ask(b"".join(lines))
    await echo.has_heard(lines[-1])
    assert echo.heard == lines


async def test_calls_that_are_under_way_together_lose_their_replies_together(proxy: Proxy, echo: Echo) -> None:
    seen = noticed(proxy)
    strikes = [proxy.strike(Fault.LOSE_REPLY, partial(contains, wanted)) for wanted in (b"a", b"b")]
    async with connected(proxy) as line:
        await line.say(b"a")
        await seen.wait()
        with pytest.raises(ConnectionResetError):
            await line.ask(b"b\n")
    assert [strike.hits for strike in strikes] == [1, 1]
    await echo.has_heard(b"ab\n")


async def test_while_replies_are_lost_every_request_loses_its_own(proxy: Proxy, echo: Echo) -> None:
    proxy.stand(Fault.LOSE_REPLY)
    for n in range(3):
        async with connected(proxy) as line:
            with pytest.raises(ConnectionResetError):
                await line.ask(b"%d\n" % n)
    assert echo.heard == [b"0\n", b"1\n", b"2\n"]


async def test_the_nth_request_is_struck_whichever_connection_it_comes_on(proxy: Proxy, echo: Echo) -> None:
    strike = proxy.strike(Fault.LOSE_REPLY, skip=2)
    async with connected(proxy) as first, connected(proxy) as second:
        await first.ask(b"1\n")
        await second.ask(b"2\n")
        assert not strike.struck.is_set()
        with pytest.raises(ConnectionResetError):
            await first.ask(b"3\n")
        assert await second.ask(b"4\n") == b"4\n"
    assert echo.heard == [b"1\n", b"2\n", b"3\n", b"4\n"]


async def test_only_wanted_requests_are_struck_and_so_many_of_them(proxy: Proxy) -> None:
    strike = proxy.strike(Fault.RESET, lambda request: b"claim" in request, skip=1, times=2)
    async with connected(proxy) as line:
        assert await line.ask(b"claim 1\n") == b"claim 1\n"
        assert await line.ask(b"create\n") == b"create\n"
    for n in (2, 3):
        assert not strike.struck.is_set()
        async with connected(proxy) as line:
            with pytest.raises(ConnectionResetError):
                await line.ask(b"claim %d\n" % n)
    assert (strike.hits, strike.struck.is_set()) == (2, True)
    async with connected(proxy) as line:
        assert await line.ask(b"claim 4\n") == b"claim 4\n"


async def test_a_request_that_comes_in_pieces_is_counted_once_and_judged_as_a_whole(proxy: Proxy, echo: Echo) -> None:
    seen = noticed(proxy)
    skipped = proxy.strike(Fault.RESET, skip=1)
    strike = proxy.strike(Fault.LOSE_REPLY, lambda request: b"claim" in request)
    async with connected(proxy) as line:
        await line.say(b"cl")
        await seen.wait()
        with pytest.raises(ConnectionResetError):
            await line.ask(b"aim\n")
    assert strike.struck.is_set()
    assert not skipped.struck.is_set()
    assert (proxy.requests, echo.heard) == (1, [b"claim\n"])


async def test_healing_forgets_what_was_to_come(proxy: Proxy) -> None:
    proxy.strike(Fault.RESET)
    proxy.heal()
    async with connected(proxy) as line:
        assert await line.ask(b"a\n") == b"a\n"


async def test_without_a_server_it_resets(echo: Echo) -> None:
    async with Proxy(1) as proxy:
        async with connected(proxy) as line:
            with pytest.raises(ConnectionResetError):
                await line.ask(b"a\n")
        proxy.target = ("127.0.0.1", echo.port)
        async with connected(proxy) as line:
            assert await line.ask(b"b\n") == b"b\n"


async def test_closing_the_proxy_ends_all_connections(echo: Echo) -> None:
    async with Proxy(echo.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"a\n")
        await reader.readline()
        assert proxy.connections == 1
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert proxy.connections == 0
