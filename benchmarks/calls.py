"""Single calls, and a server that does nothing with them: what gRPC itself costs on this machine.

`python -m benchmarks.calls HOST:PORT` serves it, in a process of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc
import uvloop

from benchmarks import lives
from benchmarks.lives import Timing
from benchmarks.servers import Server, free_port, running, wait_for

IN_FLIGHT: Final = 64
_ANSWER: Final = "/benchmarks.Nothing/Answer"
_STAY: Final = "/benchmarks.Nothing/Stay"


async def creates(*servers: Server, calls: int) -> Timing:
    """CreateJob calls, 64 in flight; over one connection to each server."""
    async with lives.stubs(servers) as stubs:
        request = lives.new_job()
        numbers = iter(range(calls))
        call = lambda: stubs[next(numbers) % len(stubs)].CreateJob(request)  # noqa: E731  shorter than a function
        return await lives.timed(servers, calls, in_flight(call, calls))


async def empty_calls(empty: Server, *, calls: int) -> Timing:
    """Calls of a handler that does nothing, 64 in flight."""
    async with answering(empty) as call:
        return await lives.timed([empty], calls, in_flight(call, calls))


@asynccontextmanager
async def answering(empty: Server) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Its unary call, with a payload of the usual size."""
    async with lives.channels([empty]) as [channel]:
        call: Any = channel.unary_unary(_ANSWER)
        yield lambda: call(lives.PAYLOAD)


def bare_stream(channel: grpc.aio.Channel) -> Any:
    """A stream of the server that does nothing, which says nothing and stays."""
    stay: Any = channel.unary_stream(_STAY)
    return stay(b"")


@contextmanager
def empty_server() -> Iterator[Server]:
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.calls", address]
    with (
        TemporaryDirectory(prefix="jobwire-bench-") as folder,
        running(command, Path(folder) / "empty.log") as process,
    ):
        wait_for(port, process)
        yield Server(address, process.pid)


async def in_flight(call: Callable[[], Awaitable[object]], calls: int) -> None:
    """So many calls, 64 at a time."""
    left = calls

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))


async def _serve(listen: str) -> None:
    async def answer(_: bytes, __: Any) -> bytes:
        return b""

    async def stay(_: bytes, context: Any) -> None:
        await context.send_initial_metadata(())
        await asyncio.Event().wait()

    handlers: dict[str, Any] = {
        _ANSWER.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(answer),
        _STAY.rpartition("/")[2]: grpc.unary_stream_rpc_method_handler(stay),
    }
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmarks.Nothing", handlers),))
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))  # the loop that jobwire's own server runs on
