"""Two servers on one engine, workers on both, a producer: real processes, for tests that kill and stop them."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from tests.faults.calls import Calls, Stubs
from tests.faults.history import ACCEPTED, PATIENCE, REPEATED, Event, History, Kind
from tests.faults.verdict import Evidence
from tests.server_process import ServerProcess
from tests.store import invariants

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED, Job, Payload
from jobwire_server.domain.job import JobState
from jobwire_server.store.redis.store import BATCH as BATCH_OF_STORE
from jobwire_server.store.redis.store import RedisStore

CREDIT: Final = 16
"""Jobs that each worker may hold."""
WINDOW: Final = 100
"""Jobs created and not settled yet, so that there is work to do from the first fault to the last."""
BATCH: Final = 20
LANES: Final = 3
"""Creates under way at a time."""
TRICKLE: Final = 0.02
"""Seconds between two jobs at one server while somebody is waited for, who may take his time."""
LATE: Final = 7
"""One in so many jobs is SCHEDULED first, a moment ahead."""
MOMENT: Final = 0.3

LONG_LEASE: Final = 30.0
"""Longer than any fault here: what happens to such a lease is no matter of its deadline."""

_ROOT: Final = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """`worker_program.py` as a child."""

    def __init__(self, id: str, process: asyncio.subprocess.Process, history: History) -> None:
        self.id: Final = id
        self._process: Final = process
        self._history: Final = history
        self._is_to_end = False
        self._reading = asyncio.create_task(self._read())

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        """Kill -9; returns when it is dead and all that it has said is heard."""
        await self._end(signal.SIGKILL)
        self._history.killed(self.id)

    async def terminate(self) -> int:
        """SIGTERM, as a deploy does; answers its exit code."""
        return await self._end(signal.SIGTERM)

    async def ended(self) -> int:
        """Returns when it has ended by itself, because somebody told it to; its exit code. Ask before that."""
        self._is_to_end = True
        await self._reading
        return await self._process.wait()

    async def _end(self, how: signal.Signals) -> int:
        self._is_to_end = True
        if self.is_running:
            self._process.send_signal(how)
        await self._reading
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._history.add(Event.of_line(line))
        if not self._is_to_end:
            self._history.fail(f"{self.id} has ended by itself: {await self._process.wait()}")


class Engine(Protocol):
    """Where the jobs are: something that outlives the servers."""

    @property
    def url(self) -> str:
        """Of the store."""


class Topology:
    """What `assembled` has started."""

    def __init__(self, engine: Engine, servers: Sequence[ServerProcess], calls: Calls, folder: Path, seed: int) -> None:
        self.engine: Final = engine
        self.servers: Final = servers
        self.calls: Final = calls
        self.history: Final = History()
        self.workers: Final[list[WorkerProcess]] = []
        self.created: Final[dict[str, str]] = {}
        """Request id → id of its job, once acknowledged."""
        self.found = 0
        """Creates whose caller learned of them by a repeat only."""
        self._folder = folder
        self._seed = seed
        self._choose = random.Random(seed)
        self._requests = 0

    # --- workers --------------------------------------------------------------------------------------------

    async def start_worker(
        self, server: int, *, lease: float = LONG_LEASE, delivery: float = 10.0, may_move: bool = False
    ) -> WorkerProcess:
        """A worker with a connection to that server, or, if it may move, to the next one that answers."""
        id = f"worker-{len(self.workers)}"
        known = [*self.servers[server:], *self.servers[:server]] if may_move else [self.servers[server]]
        target = ",".join(each.address for each in known)
        arguments = [target, id, CREDIT, lease, delivery, self._seed]
        with (self._folder / f"{id}.log").open("w") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.worker_program", *map(str, arguments)),
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        worker = WorkerProcess(id, process, self.history)
        self.workers.append(worker)
        return worker

    async def hold(self, worker: WorkerProcess, jobs: int) -> list[Event]:
        """So many handlers of that worker hold, and their leases are acknowledged; answers their HOLDING."""
        mark = self.history.mark()
        worker.tell(f"hold {jobs}")

        def holding() -> Sequence[Event]:
            return self.history.since(mark, Kind.HOLDING, worker=worker.id)

        await self.trickle(lambda: len(holding()) == jobs, f"{jobs} handlers of {worker.id} hold")
        held = list(holding())
        await self.when(lambda job: job.lease.acknowledged, [run.job_id for run in held])
        return held

    # --- jobs -----------------------------------------------------------------------------------------------

    async def some_work(self, jobs: int) -> None:
        """Returns at some moment of the next `jobs` handlers."""
        moment = self.history.total_started + self._choose.randrange(jobs // 4, jobs // 2)
        await self.history.until(lambda: self.history.total_started >= moment, f"{moment} handlers have started")

    async def produce(self, jobs: int) -> None:
        """Creates so many jobs under request ids of their own at all servers, a few calls at a time."""
        batches = iter([min(BATCH, jobs - start) for start in range(0, jobs, BATCH)])
        async with asyncio.TaskGroup() as lanes:
            for lane in range(LANES):
                lanes.create_task(self._produce(batches, lane))

    async def _produce(self, batches: Iterator[int], server: int) -> None:
        for size in batches:
            await self.history.until(lambda: len(self.created) - len(self.history.done) < WINDOW, "there is room")
            server += 1
            await self._create(size, server)

    async def _create(self, size: int, server: int) -> int:
        """Answers which server has acknowledged it in the end."""
        requests = [self._request() for _ in range(size)]
        batch = api.BatchCreateJobsRequest(requests=requests)
        by = -1

        async def create(at: Stubs) -> api.BatchCreateJobsResponse:
            nonlocal by
            by = self.calls.servers.index(at)
            return await at.jobs.BatchCreateJobs(batch, timeout=at.timeout)

        answer = await self.calls.until_known(create, at=server)
        for request, result in zip(requests, answer.results, strict=True):
            assert result.HasField("response"), result
            self.created[request.request_id] = result.response.job.id
            self.found += not result.response.created
        self.history.touch()
        return by

    def _request(self) -> api.CreateJobRequest:
        self._requests += 1
        request_id = f"request-{self._requests:05}"
        job = Job(type="work", payload=Payload(text=request_id), priority=self._choose.randint(1, 10))
        if not self._requests % LATE:
            job.schedule_time.FromNanoseconds(time.time_ns() + round(MOMENT * 1e9))
        return api.CreateJobRequest(request_id=request_id, job=job)

    async def when(self, is_so: Callable[[Job], bool], job_ids: Iterable[str], *, at: int = 0) -> None:
        """Returns when it is so for each of these jobs, by the word of that server."""
        wanted, jobs = list(job_ids), dict[str, Job]()
        try:
            async with asyncio.timeout(PATIENCE):
                while not (jobs.keys() == set(wanted) and all(is_so(job) for job in jobs.values())):
                    jobs = await self.calls.read(wanted, at=at)
                    await asyncio.sleep(0.01)  # nobody tells
        except TimeoutError:
            pending = [job for job in jobs.values() if not is_so(job)]
            raise AssertionError(f"it never came to be so for {len(pending)}: {pending[:3]}") from None

    async def leases(self) -> Counter[str]:
        """Worker → jobs it holds by the word of the store, of those that are known and not settled: all of one moment,
        since one call takes more jobs than that."""
        pending = set(self.created.values()) - self.history.done
        assert len(pending) <= BATCH_OF_STORE
        async with self.store() as store:
            jobs = (await store.get(list(pending))).jobs
        return Counter(job.worker_id for job in jobs if job is not None and job.state is JobState.IN_PROGRESS)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[RedisStore]:
        """The store itself, for what a server does not tell, or not of one moment."""
        store = RedisStore(self.engine.url)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def trickle(self, holds: Callable[[], object], what: str) -> None:
        """Creates a job at each server, one after the other, until it holds and each has acknowledged one."""
        by: set[int] = set()
        try:
            async with asyncio.timeout(PATIENCE):
                while not (holds() and len(by) == len(self.servers)):
                    for server in range(len(self.servers)):
                        by.add(await self._create(1, server))
                    await asyncio.sleep(TRICKLE)
        except TimeoutError:
            raise AssertionError(f"it never came to be: {what}") from None

    async def runs_again(self, what: str) -> None:
        """Returns when after this moment every worker has started a job and every server has acknowledged a create."""
        mark = self.history.mark()
        workers = {worker.id for worker in self.workers if worker.is_running}
        await self.trickle(
            lambda: workers <= {event.worker for event in self.history.since(mark, Kind.STARTED)},
            f"after {what} all run again: {workers}",
        )
        # For people: 5 s are promised, on a machine that has nothing else to do.
        print(f"{what}: all run again after {time.monotonic() - mark.at:.2f} s")  # noqa: T201  pytest shows it

    # --- the end --------------------------------------------------------------------------------------------

    async def evidence(self, *, silent: frozenset[str] = frozenset()) -> Evidence:
        """Waits until every job is completed, lets every process end in good order, and reads what is left.

        `silent` are workers that were stopped, or cut off, for longer than their lease.
        """
        killed = frozenset(worker.id for worker in self.workers if not worker.is_running)
        await self.when(lambda job: job.state == JOB_STATE_COMPLETED, self.created.values())
        ends = await asyncio.gather(*(worker.terminate() for worker in self.workers if worker.is_running))
        assert not any(ends), f"workers ended with {ends}"
        repeats = await self._repeat_settlements()
        jobs = await self.calls.read(self.created.values())
        total = await self.calls.count()
        ends = await asyncio.gather(*(asyncio.to_thread(server.terminate) for server in self.servers))
        assert not any(ends), f"servers ended with {ends}"
        broken = await asyncio.to_thread(invariants.broken_at, self.engine.url)
        assert not broken, "\n".join(broken)
        return Evidence(
            created=self.created,
            jobs=jobs,
            total=total,
            events=self.history.events,
            killed=killed,
            silent=silent | killed,
            credit=CREDIT,
            repeats=repeats,
        )

    async def _repeat_settlements(self) -> dict[tuple[str, int], str]:
        """Completes every run once more, under the token that it had."""
        runs = [event for event in self.history.events if event.kind is Kind.STARTED]
        changes = [api.UpdateJobRequest(job_id=run.job_id, token=run.token, complete=api.CompleteJob()) for run in runs]
        answers = {}
        for run, result in zip(runs, await self.calls.update(changes), strict=True):
            if result.HasField("error"):
                answers[run.job_id, run.fence] = result.error.reason
            else:
                answers[run.job_id, run.fence] = REPEATED if result.response.already_applied else ACCEPTED
        return answers

    def complaints(self) -> list[str]:
        """What servers and workers have written to their logs, a warning or worse."""
        lines = [line for log in sorted(self._folder.glob("*.log")) for line in log.read_text().splitlines()]
        return [line for line in lines if re.search(r" (WARNING|ERROR|CRITICAL) ", line)]


@asynccontextmanager
async def assembled(
    engine: Engine, folder: Path, seed: int, *, stores: Sequence[str] = (), timeout: float = 10.0
) -> AsyncIterator[Topology]:
    """Two servers on an engine that runs, or as many as `stores` has URLs for; killed at the end, whatever happened,
    workers included. `timeout` is what callers give a call."""
    servers = [
        ServerProcess(store, folder / f"server-{i}.log") for i, store in enumerate(stores or [engine.url, engine.url])
    ]
    async with AsyncExitStack() as stack:
        for server in servers:
            stack.callback(server.end)
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        calls = await stack.enter_async_context(Calls([server.address for server in servers], timeout=timeout))
        topology = Topology(engine, servers, calls, folder, seed)
        try:
            yield topology
        finally:
            for worker in topology.workers:
                await worker.kill()
