"""A TCP proxy that fails on command: between a server and its store, or a client and its server."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Self

CHUNK: Final = 64 * 1024

LONGEST_JUDGED: Final = 1024 * 1024
"""Bytes of a request that are looked at."""


class Fault(StrEnum):
    """What the proxy does to a request, or, as a standing fault, to every connection."""

    RESET = "reset"
    """The request is not passed on and its connection is reset: it did not happen."""
    SILENCE = "silence"
    """The request is swallowed and nothing is ever answered, on a connection that stays open: it did not happen."""
    LOSE_REPLY = "lose_reply"
    """The request is passed on, the answer dropped, the connection reset: it happened, and who asked cannot know."""


Wanted = Callable[[bytes], bool]
"""Judges a request by its bytes as far as they have come."""


class Strike:
    """A fault that waits for its requests."""

    def __init__(self, fault: Fault, wanted: Wanted, *, skip: int, times: int) -> None:
        self.fault: Final = fault
        self._wanted: Final = wanted
        self._skip = skip
        self._left = times
        self._times: Final = times
        self.hits = 0
        """Requests struck. One whose reply is to be lost counts when the reply was lost: it has happened by then."""
        self.struck: Final = asyncio.Event()
        """Set when the last of them was struck."""

    @property
    def is_spent(self) -> bool:
        return not self._left

    def takes(self) -> bool:
        """Whether it strikes; asked once for each request that it wants."""
        if self._skip:
            self._skip -= 1
            return False
        self._left -= 1
        return True

    def wants(self, request: bytes) -> bool:
        return not self.is_spent and self._wanted(request)

    def hit(self) -> None:
        self.hits += 1
        if self.hits == self._times:
            self.struck.set()


class Proxy:
    """Listens on a free port of loopback and passes everything on to `target`; `async with` it.

    A request is what a client sends until the server answers on that connection: calls that are under way together are
    one, and lose their replies together. (On HTTP/2 there is no such thing: use standing faults, `reset` and `delay`.)
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.target = (host, port)
        """Where new connections go; may be changed at any time."""
        self.delay = 0.0
        """Seconds that each piece of an answer is held back."""
        self.request_delay = 0.0
        """Seconds that each piece of a request is held back; it arrives even when its client has gone meanwhile."""
        self.requests = 0
        """Begun so far, the struck ones included."""
        self.port = 0
        self._standing: Fault | None = None
        self._strikes: list[Strike] = []
        self._server: asyncio.Server | None = None
        self._relays: dict[Relay, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._relays.values())
        for relay, task in self._relays.items():
            relay.reset()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._relays)

    # --- commands -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Resets every connection there is; new ones work."""
        for relay in list(self._relays):
            relay.reset()

    def stand(self, fault: Fault) -> None:
        """From now on every connection, open or new, and every request meets this fault, until `heal`.

        RESET also refuses to connect, as far as a proxy can: it resets what it has accepted. SILENCE also drops the
        answers that are under way.
        """
        self._standing = fault
        if fault is Fault.RESET:
            self.reset()

    def heal(self) -> None:
        """Ends the standing fault and forgets waiting strikes. Connections that have lost bytes are reset."""
        self._standing = None
        self._strikes.clear()
        for relay in list(self._relays):
            if relay.has_lost_bytes:
                relay.reset()

    def strike(self, fault: Fault, wanted: Wanted = lambda _: True, *, skip: int = 0, times: int = 1) -> Strike:
        """Strikes the next request that is `wanted`, or after `skip` of them, and so many `times`; await `struck`."""
        strike = Strike(fault, wanted, skip=skip, times=times)
        self._strikes.append(strike)
        return strike

    # --- what relays ask ------------------------------------------------------------------------------------

    @property
    def standing(self) -> Fault | None:
        return self._standing

    def judge(self, request: bytes, judged: set[Strike]) -> tuple[Fault | None, Strike | None]:
        """What this request meets; `judged` remembers, while it comes in pieces, which strikes have counted it."""
        if self._standing is not None:
            return self._standing, None
        for strike in self._strikes:
            if strike in judged or not strike.wants(request):
                continue
            judged.add(strike)
            if strike.takes():
                self._strikes = [each for each in self._strikes if not each.is_spent]
                return strike.fault, strike
        return None, None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relay = Relay(self, reader, writer)
        self._relays[relay] = task
        try:
            await relay.run()
        finally:
            del self._relays[relay]


class Relay:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._from_client = reader
        self._to_client = writer
        self._to_server: asyncio.StreamWriter | None = None
        self._request = b""
        """What has come of the request under way; empty when the server has answered it."""
        self._judged: set[Strike] = set()
        self._loses_reply = False
        """The answer to the request under way is not for its client,"""
        self._loses_for: list[Strike] = []
        """because of these strikes, or of the standing fault."""
        self.has_lost_bytes = False
        """What goes to and fro makes no sense any more."""

    def reset(self) -> None:
        """To the client it looks as if the server's machine had crashed; the server sees an ordinary end."""
        peer: socket.socket = self._to_client.get_extra_info("socket")
        if peer.fileno() != -1:
            # Lingering for no time makes the kernel send RST, and drop what is not sent yet.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._to_client.transport.abort()

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            writers = [writer for writer in (self._to_client, self._to_server) if writer is not None]
            for writer in writers:
                writer.close()
            try:
                await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
            except asyncio.CancelledError:
                for writer in writers:
                    writer.transport.abort()  # what is not sent by now is sent to nobody
                raise

    async def _run(self) -> None:
        if self._proxy.standing is Fault.RESET:
            self.reset()
            return
        if self._proxy.standing is Fault.SILENCE:  # even when there is no server
            self.has_lost_bytes = True
            await self._swallow()
            return
        try:
            from_server, self._to_server = await asyncio.open_connection(*self._proxy.target)
        except OSError:
            self.reset()
            return
        down = asyncio.create_task(self._answers(from_server))
        try:
            await self._requests(self._to_server)
            await down
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)

    async def _swallow(self) -> None:
        try:
            while await self._from_client.read(CHUNK):
                pass
        except ConnectionError:
            pass  # an end as good as any

    async def _requests(self, to_server: asyncio.StreamWriter) -> None:
        """Client → server, until the client has no more to say."""
        try:
            while piece := await self._from_client.read(CHUNK):
                if self.has_lost_bytes:
                    continue
                if not self._request:
                    self._proxy.requests += 1
                    self._judged.clear()
                self._request = (self._request + piece)[:LONGEST_JUDGED]
                fault, strike = self._proxy.judge(self._request, self._judged)
                if fault is Fault.LOSE_REPLY:
                    self._loses_reply = True
                    self._loses_for += [] if strike is None else [strike]
                elif fault is not None:
                    self.has_lost_bytes = True
                    if fault is Fault.RESET:
                        self.reset()
                    if strike is not None:
                        strike.hit()
                    continue
                if self._proxy.request_delay:
                    await asyncio.sleep(self._proxy.request_delay)
                to_server.write(piece)
                await to_server.drain()
        except ConnectionError:
            pass  # an end as good as any
        finally:
            _end(to_server)

    async def _answers(self, from_server: asyncio.StreamReader) -> None:
        """Server → client, until the server has no more to say: to the end whatever becomes of the client, so that
        the server carries out all that was passed on."""
        try:
            while piece := await from_server.read(CHUNK):
                if self._loses_reply:
                    self._lose()
                if self._proxy.standing is Fault.SILENCE:
                    self.has_lost_bytes = True
                if self.has_lost_bytes or self._to_client.is_closing():
                    continue
                self._request = b""
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                if not self._to_client.is_closing():
                    self._to_client.write(piece)
                    await self._to_client.drain()
        except ConnectionError:
            pass  # an end as good as any
        if not self.has_lost_bytes:
            _end(self._to_client)

    def _lose(self) -> None:
        strikes, self._loses_reply, self._loses_for = self._loses_for, False, []
        self.has_lost_bytes = True
        self.reset()
        for strike in strikes:
            strike.hit()


def _end(writer: asyncio.StreamWriter) -> None:
    """Says that no more comes."""
    if writer.is_closing():
        return
    try:
        writer.write_eof()
    except OSError:
        writer.transport.abort()
