"""A worker whose server or whose own process is ended while handlers run."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.client.conftest import PATIENCE, Bench
from tests.client.test_worker import outcomes, state
from tests.server_process import ServerProcess

from jobwire_client import JobContext, Settled, Worker
from jobwire_client._coalescer import Coalescer
from jobwire_client.errors import JobwireError
from jobwire_client.worker import SAME_WISH

PROGRAM = Path(__file__).with_name("worker_program.py")


class WorkerProcess:
    """`worker_program.py` as a child, told and heard line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self, words: str) -> None:
        """Returns when it has said so."""
        assert self._process.stdout is not None
        heard = []
        async with asyncio.timeout(PATIENCE):
            while line := await self._process.stdout.readline():
                heard.append(line.decode())
                if words in heard[-1]:
                    return
        raise AssertionError(f"it ended without saying {words!r}: {heard}")

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(PATIENCE):
            assert self._process.stdout is not None
            await self._process.stdout.read()
            return await self._process.wait()


class Heard(logging.Handler):
    """The lines of a log, to be waited for in their event loop."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._loop = asyncio.get_running_loop()
        self._lines = asyncio.Queue[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, record.getMessage())

    async def line(self, words: str) -> None:
        """Returns when a line has said so."""
        async with asyncio.timeout(PATIENCE):
            while words not in await self._lines.get():
                pass


@asynccontextmanager
async def worker_process(address: str, queue: str, *, grace: float) -> AsyncIterator[WorkerProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        address,
        queue,
        str(grace),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield WorkerProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@pytest.mark.parametrize("end", [ServerProcess.kill, ServerProcess.terminate], ids=["killed", "redeployed"])
async def test_a_handler_that_runs_while_the_server_is_replaced_completes_once(
    own_bench: Bench, own_server: ServerProcess, end: Callable[[ServerProcess], object]
) -> None:
    settled: list[Settled] = []
    worker = Worker(own_bench.address, on_settled=settled.append)
    started, go_on = asyncio.Queue[int](), asyncio.Event()

    @worker.handler("slow")
    async def slow(context: JobContext) -> str:
        started.put_nowait(context.fence)
        await go_on.wait()
        return "done"

    async with own_bench.working(worker):
        made = await own_bench.client.create("slow")
        await started.get()
        await asyncio.to_thread(end, own_server)
        await asyncio.to_thread(own_server.start)
        go_on.set()
        job = await own_bench.ended(made.id)
        later = await own_bench.client.create("slow")
        await own_bench.ended(later.id)
        assert started.qsize() == 1, "the worker has come back, and has run the first job once"
    assert (state(job), outcomes(job), job.result.text) == ("COMPLETED", ["COMPLETED"], "done")
    assert not [done for done in settled if isinstance(done.answer, JobwireError)]


async def test_a_settlement_that_finds_no_server_is_repeated_until_there_is_one(
    own_bench: Bench, own_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    retries: asyncio.Queue[int] = asyncio.Queue()
    put_back = Coalescer._put_back

    def count(self: Coalescer[Any, Any], items: Sequence[Any]) -> None:
        retries.put_nowait(len(items))
        put_back(self, items)

    monkeypatch.setattr(Coalescer, "_put_back", count)
    worker = Worker(own_bench.address)
    started, go_on = asyncio.Event(), asyncio.Event()
    runs = 0

    @worker.handler("slow")
    async def slow(context: JobContext) -> str:
        nonlocal runs
        runs += 1
        started.set()
        await go_on.wait()
        return "done"

    async with own_bench.working(worker):
        made = await own_bench.client.create("slow")
        await started.wait()
        await asyncio.to_thread(own_server.kill)
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                await retries.get()
        await asyncio.to_thread(own_server.start)
        job = await own_bench.ended(made.id)
    assert (state(job), outcomes(job), job.result.text) == ("COMPLETED", ["COMPLETED"], "done")
    assert runs == 1


async def test_sigterm_finishes_what_it_can_releases_the_rest_and_claims_no_more(bench: Bench, queue: str) -> None:
    async with worker_process(bench.address, queue, grace=2) as worker:
        finishing = await bench.client.create("finishing", queue=queue)
        await worker.says(f"started {finishing.id}")
        endless = await bench.client.create("endless", queue=queue)
        await worker.says(f"started {endless.id}")
        worker.send(signal.SIGTERM)
        await worker.says("draining: 2 jobs have 2 s to finish; the same again stops at once")
        late = await bench.client.create("endless", queue=queue)
        worker.tell("finished")
        assert await worker.exit_code() == 0
    jobs = [await bench.client.get(made.id) for made in (finishing, endless, late)]
    assert [(state(job), outcomes(job)) for job in jobs] == [
        ("COMPLETED", ["COMPLETED"]),
        ("QUEUED", ["RELEASED"]),
        ("QUEUED", []),
    ]
    assert jobs[0].result.text == "finished"
    assert jobs[1].retry_count == jobs[1].interruption_count == 0


@pytest.mark.parametrize("type", ["endless", "blocking"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_the_process_at_once_even_when_a_handler_blocks_its_loop(
    bench: Bench, queue: str, number: signal.Signals, code: int, type: str
) -> None:
    async with worker_process(bench.address, queue, grace=PATIENCE) as worker:
        made = await bench.client.create(type, queue=queue)
        await worker.says(f"started {made.id}")
        worker.send(number)
        if type == "endless":
            await worker.says("draining: 1 job has 30 s to finish; the same again stops at once")
        ending = asyncio.create_task(worker.exit_code())
        while not ending.done():  # what comes within an instant counts as the first
            worker.send(number)
            await asyncio.wait([ending], timeout=SAME_WISH)
        assert ending.result() == code


async def test_the_same_signal_twice_in_an_instant_drains(bench: Bench, queue: str) -> None:
    """As GNU timeout sends it: to the process, and to its group."""
    async with worker_process(bench.address, queue, grace=PATIENCE) as worker:
        made = await bench.client.create("finishing", queue=queue)
        await worker.says(f"started {made.id}")
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGTERM)
        await worker.says("draining: 1 job has")
        worker.tell("finished")
        assert await worker.exit_code() == 0
    assert outcomes(await bench.client.get(made.id)) == ["COMPLETED"]


@pytest.mark.parametrize("end", [ServerProcess.kill, ServerProcess.terminate], ids=["killed", "redeployed"])
async def test_an_outage_is_told_in_short_lines_and_its_end_in_one(
    own_bench: Bench,
    own_server: ServerProcess,
    end: Callable[[ServerProcess], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "jobwire.worker")
    heard = Heard()
    logging.getLogger("jobwire.worker").addHandler(heard)
    worker = Worker(own_bench.address)
    worker.handler("quick")(lambda context: "done")
    try:
        async with own_bench.working(worker):
            await own_bench.ended((await own_bench.client.create("quick")).id)
            await asyncio.to_thread(end, own_server)
            await heard.line("UNAVAILABLE: connection refused")
            await asyncio.to_thread(own_server.start)
            await heard.line("is connected again after")
    finally:
        logging.getLogger("jobwire.worker").removeHandler(heard)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert not [line for _, line in lines if len(line) > 120 or "heartbeat for 0 jobs" in line]
    assert {level for level, line in lines if "SERVER_DRAINING" in line} <= {"INFO"}
    assert len([line for _, line in lines if "connected again" in line]) == 1


async def test_the_jobs_of_a_killed_worker_run_again(bench: Bench, queue: str) -> None:
    async with worker_process(bench.address, queue, grace=2) as worker:
        made = await bench.client.create("endless", queue=queue)
        await worker.says(f"started {made.id}")
        await bench.job_when(made.id, lambda job: job.lease.acknowledged)
        worker.send(signal.SIGKILL)
        await worker.exit_code()
    successor = Worker(bench.address, queues=[queue])
    successor.handler("endless")(lambda context: "finished by another")
    async with bench.working(successor):
        job = await bench.ended(made.id)
    assert (outcomes(job), job.interruption_count) == (["INTERRUPTED", "COMPLETED"], 1)
