"""Group commit: who shares a transaction, and what happens when one of them is bad."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.store import invariants
from tests.store.making import Clock, claim, get, ids, is_there, new_job, put, queue, shove, worker

from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, JobState
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import CreateOutcome, Hints, StoreFull, StoreUnavailable
from jobwire_server.store.sqlite import lane
from jobwire_server.store.sqlite.lane import MAX_WEIGHT
from jobwire_server.store.sqlite.store import RESERVE, SqliteStore
from jobwire_server.store.sqlite.transaction import Transaction

PATIENCE = 20


class Disk:
    free = RESERVE

    def __call__(self) -> int:
        return self.free


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def file(tmp_path: Path, clock: Clock, disk: Disk) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(tmp_path / "jobwire.db"), clock=clock, free_disk=disk)
    await store.open()
    yield store
    broken = [] if store.failure else await invariants.broken(store)
    await store.close()
    assert not broken


@pytest.fixture
async def memory(clock: Clock) -> AsyncIterator[SqliteStore]:
    """Where listings go through the writer's lane too, since there is no other."""
    store = SqliteStore(None, clock=clock, outage_gap=None)
    await store.open()
    yield store
    broken = await invariants.broken(store)
    await store.close()
    assert not broken


@contextmanager
def held_up(store: SqliteStore) -> Iterator[None]:
    """While inside, a commit is under way; what is called meanwhile waits together."""
    release = threading.Event()

    def hold(transaction: Transaction) -> None:
        transaction.execute("UPDATE meta SET value = value")  # or there is nothing to commit
        transaction.connection.set_commit_hook(lambda: not release.wait(PATIENCE))

    task = asyncio.create_task(store._write(hold, weight=MAX_WEIGHT))
    try:
        yield
    finally:
        release.set()
        del task


async def started(*coroutines: Any) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)  # each runs to where it waits for the writer
    return tasks


async def answered(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """Answers and exceptions, in order."""
    return list(await asyncio.gather(*tasks, return_exceptions=True))


async def test_calls_that_wait_together_are_committed_and_told_together(
    file: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = 0
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon_threadsafe

    def counting(*arguments: Any, **named: Any) -> asyncio.Handle:
        nonlocal told
        told += 1
        return call_soon(*arguments, **named)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
    hints = file.hints()
    with held_up(file):
        tasks = await started(*(file.create([new_job(f"j{n}")]) for n in range(50)))
    await asyncio.gather(*tasks)
    assert told == 2, "once for the call that held them up, once for all of them"
    assert await anext(hints) == Hints(queued={"default": 50})


async def test_who_waits_for_jobs_is_told_before_the_commit_and_workers_after_it(
    file: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that comes too early finds nothing; a worker that stops too early has stopped."""
    await file.beat(WorkerInfo(id="w"))
    hints = file.hints()
    may_commit = asyncio.Event()
    thread = file._writer._thread  # type: ignore[union-attr]  # it is open
    do = thread.do

    async def held_back(*work: Any) -> Any:
        await may_commit.wait()
        return await do(*work)

    monkeypatch.setattr(thread, "do", held_back)
    tasks = await started(file.create([new_job("j")]), file.direct("w", Directive.QUIET))
    async with asyncio.timeout(PATIENCE):
        assert await anext(hints) == Hints(queued={"default": 1})
    assert not any(task.done() for task in tasks)
    may_commit.set()
    assert await anext(hints) == Hints(directives={"w": Directive.QUIET})
    await asyncio.gather(*tasks)


async def test_a_bad_call_that_joins_a_transaction_fails_alone(file: SqliteStore) -> None:
    hints = file.hints()
    commits: list[str] = []
    file._writer._timed = lambda step, _: commits.append(step)  # type: ignore[union-attr]  # it is open

    def bad(transaction: Transaction) -> None:
        transaction.execute("DELETE FROM job")
        raise ValueError("bad")

    creating = asyncio.create_task(file.create([new_job("j")]))
    async with asyncio.timeout(PATIENCE):
        await anext(hints)
    assert not creating.done()
    assert not commits, "the transaction had ended: the test proves nothing"
    joining = await started(file._write(bad), file.create([new_job("k")]))
    (created,) = await creating
    assert created.outcome is CreateOutcome.CREATED
    failed, _ = await answered(joining)
    assert isinstance(failed, ValueError)
    assert [await is_there(file, id) for id in ("j", "k")] == [True, True]


async def test_a_transaction_is_bounded(file: SqliteStore) -> None:
    hints = file.hints()
    seen = []

    async def listen() -> None:
        async for hint in hints:
            seen.append(hint.queued["default"])

    listening = asyncio.create_task(listen())
    batch = MAX_WEIGHT // 2
    with held_up(file):
        tasks = await started(*(file.create([new_job(f"{n}-{m}") for m in range(batch)]) for n in range(4)))
    await asyncio.gather(*tasks)
    await file.close()
    await listening
    await file.open()
    assert sum(seen) == 4 * batch
    assert (await file.claim("default", [])).remaining == 4 * batch


@asynccontextmanager
async def watched(tmp_path: Path) -> AsyncIterator[tuple[SqliteStore, list[str]]]:
    """An open store, and the names of the threads in which its calls look at the clock."""
    threads: list[str] = []

    def clock() -> int:
        threads.append(threading.current_thread().name)
        return 1_700_000_000_000_000

    file = SqliteStore(str(tmp_path / "jobwire.db"), clock=clock)
    await file.open()
    threads.clear()
    yield file, threads
    await file.close()


async def test_a_listing_never_holds_up_the_writer(tmp_path: Path) -> None:
    async with watched(tmp_path) as (file, threads):
        await file.find(JobFilter(), limit=9)
        await file.find(JobFilter(user_id="ann"), limit=9)
        await file.count(JobFilter())
        await file.queues()
        await file.workers()
        assert threads == ["jobwire-reader"] * 5


async def test_a_sweep_over_all_queues_never_holds_up_the_event_loop(tmp_path: Path) -> None:
    async with watched(tmp_path) as (file, threads):
        await file.promote(limit=9)
        await file.overdue(limit=9)
        await file.leased(longer_than=1, limit=9)
        await file.purge(limit=9)
        assert threads == ["jobwire-writer"] * 4


LISTINGS: dict[str, tuple[Callable[[SqliteStore], Any], Callable[[Any], Any], Any]] = {
    "find": (lambda store: store.find(JobFilter(), limit=9), lambda found: ids(found.jobs), ["a", "b"]),
    "count": (lambda store: store.count(JobFilter()), lambda counts: counts.by_state, {JobState.QUEUED: 2}),
    "queues": (
        lambda store: store.queues(),
        lambda found: [(queue.settings.name, queue.counts) for queue in found.queues],
        [("a", {JobState.QUEUED: 1}), ("b", {JobState.QUEUED: 1})],
    ),
    "workers": (
        lambda store: store.workers(),
        lambda found: [(worker.info.host, worker.held) for worker in found.workers],
        [("h", 0)],
    ),
}
"""Verb → a call of it, what a test wants to know of its answer, and what that should be."""


@pytest.mark.parametrize("verb", LISTINGS)
async def test_a_listing_sees_all_that_shares_its_transaction(memory: SqliteStore, verb: str) -> None:
    call, told, expected = LISTINGS[verb]
    with held_up(memory):
        tasks = await started(
            memory.create([new_job("a", queue="a"), new_job("b", queue="b")]),
            memory.beat(WorkerInfo(id="w", host="h")),
            call(memory),
        )
    assert told((await answered(tasks))[-1]) == expected


async def test_what_shares_a_transaction_with_a_purge_is_not_forgotten_by_it(memory: SqliteStore, clock: Clock) -> None:
    await memory.beat(WorkerInfo(id="w", session=7, host="h"))
    await memory.put_queue("q", {}, create=True)
    await memory.put_queue("old", {}, create=True)
    clock.now += DAY
    with held_up(memory):
        tasks = await started(
            memory.beat(WorkerInfo(id="w")),
            memory.put_queue("q", {"paused": True}),
            memory.purge(limit=9),
            memory.create([new_job("j", queue="old")]),
            memory.beat(WorkerInfo(id="w", session=6)),
            memory.put_queue("q", {"ageing": 1}, revision=1),
        )
    answers = await answered(tasks)
    assert (answers[4], answers[5].outcome) == (None, Outcome.OK)
    assert (await worker(memory)).info == WorkerInfo(id="w", session=7, host="h")
    assert (await queue(memory, "q")).settings.revision == 2
    assert (await queue(memory, "old")).settings.create_time == clock.now, "it is a new one"


async def test_what_is_told_is_on_the_disk(file: SqliteStore, tmp_path: Path) -> None:
    await put(file, "j")
    other = apsw.Connection(str(tmp_path / "jobwire.db"), apsw.SQLITE_OPEN_READONLY)
    assert other.execute("SELECT id FROM job").fetchall() == [("j",)]
    other.close()


async def test_a_bad_call_fails_alone(file: SqliteStore) -> None:
    def bad(transaction: Transaction) -> None:
        transaction.execute("UPDATE job SET priority = 99")
        transaction.counted("default", None, JobState.FAILED, 7)
        transaction.enter("default", queue_time=None, priority=1)
        raise ZeroDivisionError

    await put(file, "j")
    hints = file.hints()
    with held_up(file):
        tasks = await started(file.create([new_job("a")]), file._write(bad), file.create([new_job("b")]), file.ping())
    answers = await answered(tasks)
    assert isinstance(answers[1], ZeroDivisionError)
    assert [answers[n][0].outcome for n in (0, 2)] == [CreateOutcome.CREATED] * 2
    assert (await get(file, "j")).priority == 5
    assert (await anext(hints)).queued == {"default": 2}
    b = await get(file, "b")
    assert b.queue_time == ((await get(file, "a")).queue_time or 0) + 1, "the bad call's queue_time never was"


async def test_a_caller_that_goes_away_does_not_stop_its_call(file: SqliteStore) -> None:
    with held_up(file):
        gone, stays = await started(file.create([new_job("gone")]), file.create([new_job("stays")]))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    await stays
    assert await is_there(file, "gone")


async def test_closing_finishes_the_calls_under_way(file: SqliteStore) -> None:
    with held_up(file):
        tasks = await started(file.create([new_job("j")]), file.close())
    await asyncio.gather(*tasks)
    await file.open()
    assert await is_there(file, "j")


async def test_creates_are_refused_while_the_reserve_of_disk_is_touched(file: SqliteStore, disk: Disk) -> None:
    await put(file, "j")
    disk.free = RESERVE - 1
    with held_up(file):
        tasks = await started(file.create([new_job("a")]), claim(file))
    refused, claimed = await answered(tasks)
    assert isinstance(refused, StoreFull)
    assert [job.id for job in claimed.jobs] == ["j"], "what is there can be worked off"
    await shove(file, "j", JobState.CANCELED)
    disk.free = RESERVE
    await put(file, "a")
    assert not file.failed.is_set()


async def test_a_full_disk_refuses_what_does_not_fit_and_nothing_of_it_happened(file: SqliteStore) -> None:
    await put(file, "j")

    def limit(pages: int) -> Any:
        return file._write(lambda transaction: transaction.connection.pragma("max_page_count", pages))

    used = await file._write(lambda transaction: transaction.connection.pragma("page_count"))
    await limit(used + 2)
    with held_up(file):
        tasks = await started(
            file.create([new_job("large", submission=b"x" * 100_000)]), claim(file), file.create([new_job("small")])
        )
    answers = await answered(tasks)
    assert isinstance(answers[0], StoreFull)
    assert [job.id for job in answers[1].jobs] == ["j"]
    assert answers[2][0].outcome is CreateOutcome.CREATED
    await limit(1_000_000)
    assert not await is_there(file, "large")
    assert not file.failed.is_set()


@pytest.mark.parametrize("kind", [apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError])
async def test_after_an_io_error_or_corruption_the_store_is_failed_for_good(
    file: SqliteStore, kind: type[Exception]
) -> None:
    def break_(transaction: Transaction) -> None:
        raise kind("planted")

    with held_up(file):
        tasks = await started(file.create([new_job("a")]), file._write(break_), file.create([new_job("b")]))
    for answer in await answered(tasks):
        assert isinstance(answer, StoreUnavailable)
    assert file.failed.is_set()
    assert "planted" in file.failure
    for call in (file.ping(), file.get(["a"]), file.create([new_job("c")])):
        with pytest.raises(StoreUnavailable, match="planted"):
            await call


async def test_calls_that_were_waiting_when_the_store_failed_are_refused(file: SqliteStore) -> None:
    def break_(transaction: Transaction) -> None:
        raise apsw.IOError("planted")

    with held_up(file):
        tasks = await started(file._write(break_, weight=MAX_WEIGHT), file.create([new_job("a")]))
    answers = await answered(tasks)
    assert [type(answer) for answer in answers] == [StoreUnavailable, StoreUnavailable]


async def test_a_file_that_another_tool_is_writing_to_is_unavailable_for_now_only(
    file: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "BUSY", 1)
    other = apsw.Connection(str(tmp_path / "jobwire.db"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await file.create([new_job("j")])
    other.execute("ROLLBACK")
    other.close()
    await put(file, "j")
    assert not file.failed.is_set()


async def test_the_event_loop_goes_on_while_another_tool_writes_to_the_file(file: SqliteStore, tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "jobwire.db"))
    other.execute("BEGIN IMMEDIATE")
    (creating,) = await started(file.create([new_job("j")]))
    assert (await file.find(JobFilter(), limit=9)).jobs == [], "the reader answers"
    assert not creating.done()
    other.execute("ROLLBACK")
    other.close()
    assert (await creating)[0].outcome is CreateOutcome.CREATED
