"""What only a file can do: outlive its process, belong to one, and be refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from tests.store import invariants
from tests.store.making import START, Clock, claim, get, move, new_job, put, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, JobError, JobState
from jobwire_server.store.base import CannotOpen, CreateOutcome, Renewal, StoreUnavailable
from jobwire_server.store.sqlite.opening import SCHEMA_VERSION
from jobwire_server.store.sqlite.store import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobwire.db"


async def opened(path: Path, clock: Clock) -> SqliteStore:
    store = SqliteStore(str(path), clock=clock)
    await store.open()
    return store


def content(path: Path) -> bytes:
    return path.read_bytes()


async def test_everything_is_there_after_closing_and_opening_again(path: Path, clock: Clock) -> None:
    store = await opened(path, clock)
    await store.create([new_job("a", submission=b"x", request_key=b"k"), new_job("b", schedule_time=START + SECOND)])
    done = await put(store, "done", queue="q")
    (done,) = (await claim(store, queue="q")).jobs
    assert done.token
    await store.renew([Renewal(job_id="done", token=done.token, fraction=0.5, message="½")])
    await store.move([policy.complete("done", done.token, b"result")])
    (leased,) = (await claim(store, wish("w", session=4))).jobs
    assert leased.token
    before = (await store.get(["a", "b", "done"])).jobs
    await store.close()

    store = await opened(path, clock)
    assert (await store.get(["a", "b", "done"])).jobs == before
    assert (await store.create([new_job("a", request_key=b"k")]))[0].outcome is CreateOutcome.EXISTED
    assert (await claim(store, wish("w", session=3))).outcome == "superseded"
    error = JobError("E", "")
    fail = policy.fail(leased, leased.token, error, permanent=True, retry_delay=None, now=clock.now, random=0)
    assert await move(store, fail) is Outcome.OK
    assert (await claim(store, wish("w", session=4))).held == 0
    assert not await invariants.broken(store)
    await store.close()


async def test_queue_time_rises_across_a_restart_with_a_clock_that_went_back(path: Path, clock: Clock) -> None:
    store = await opened(path, clock)
    first = await put(store, "first")
    await store.close()
    clock.advance(-1000)
    store = await opened(path, clock)
    second = await put(store, "second")
    assert first.queue_time is not None
    assert second.queue_time == first.queue_time + 1
    await store.close()


async def test_every_opening_counts_as_an_outage_but_the_first(path: Path, clock: Clock) -> None:
    store = await opened(path, clock)
    assert (await store.info()).recovered_at == 0
    await put(store, "j", JobState.IN_PROGRESS)
    await store.close()
    clock.advance(100)
    store = await opened(path, clock)
    assert (await store.info()).recovered_at == clock.now
    clock.now += 10 * SECOND - 1
    assert (await store.overdue(limit=9)).jobs == []
    clock.now += 1
    assert len((await store.overdue(limit=9)).jobs) == 1
    await store.close()


async def test_an_empty_file_is_a_new_database(path: Path, clock: Clock) -> None:
    os.close(os.open(path, os.O_CREAT))
    store = await opened(path, clock)
    assert (await store.info()).recovered_at == 0
    await store.close()


async def test_info_says_what_an_ok_means(path: Path, clock: Clock) -> None:
    store = await opened(path, clock)
    info = await store.info()
    assert (info.kind, info.durability, info.now) == ("sqlite", "fsynced", START)
    assert info.engine == f"SQLite {apsw.sqlite_lib_version()}"
    assert info.url == f"sqlite:///{path}"
    assert info.url.startswith("sqlite:////"), "four slashes: absolute"
    await store.close()
    memory = SqliteStore(None, clock=clock)
    await memory.open()
    info = await memory.info()
    assert (info.kind, info.durability, info.url) == ("memory", "none", "memory://")
    await memory.close()


async def test_only_the_owner_may_read_a_new_database(path: Path, clock: Clock) -> None:
    old = os.umask(0)
    try:
        store = await opened(path, clock)
        await put(store, "j")
        assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == dict.fromkeys(
            ["jobwire.db", "jobwire.db-wal", "jobwire.db-shm", "jobwire.db.lock"], "0o600"
        )
        await store.close()
    finally:
        os.umask(old)


async def test_a_second_process_is_refused_and_told_who_has_the_file(path: Path, clock: Clock) -> None:
    store = await opened(path, clock)
    with pytest.raises(CannotOpen, match=f"in use by process {os.getpid()}"):
        await opened(path, clock)
    await put(store, "j")
    await store.close()
    store = await opened(path, clock)
    assert (await get(store, "j")).id == "j"
    await store.close()


async def test_another_schema_is_refused_and_left_as_it_is(path: Path, clock: Clock) -> None:
    await (await opened(path, clock)).close()
    with apsw.Connection(str(path)) as connection:
        connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.close()
    with pytest.raises(CannotOpen, match=f"has schema {SCHEMA_VERSION + 1}, .* knows schema {SCHEMA_VERSION} only"):
        await opened(path, clock)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION])
async def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(path: Path, clock: Clock, version: int) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE customers (name)")
    connection.pragma("user_version", version)
    connection.close()
    before = content(path)
    with pytest.raises(CannotOpen, match="not one of jobwire's"):
        await opened(path, clock)
    assert content(path) == before


@pytest.fixture
def diary(path: Path) -> Path:
    path.write_text("Dear diary, " * 1000)
    return path


async def test_what_is_no_database_is_refused(diary: Path, clock: Clock) -> None:
    with pytest.raises(CannotOpen, match="cannot open"):
        await opened(diary, clock)
    with pytest.raises(CannotOpen, match="does not exist"):
        await opened(diary.parent / "no" / "such" / "folder" / "jobwire.db", clock)


async def test_a_store_that_is_not_open_is_unavailable(path: Path, clock: Clock) -> None:
    store = SqliteStore(str(path), clock=clock)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.open()
    await store.ping()
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.get(["j"])


CHILD = """
import asyncio, sys
from jobwire_server.store.sqlite.store import SqliteStore
from tests.store.making import new_job

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    async def write(writer):
        for n in range(1_000_000):
            id = f"{writer}-{n}"
            await store.create([new_job(id, submission=b"x" * 200, request_key=id.encode())])
            print(id, flush=True)
    await asyncio.gather(*(write(writer) for writer in range(8)))

asyncio.run(main())
"""


@pytest.fixture(params=[1, 57, 400])
def acknowledged(request: pytest.FixtureRequest, path: Path, repository: Path) -> list[str]:
    """The ids that a child said were created, until it was killed in the middle of it."""
    roots = [repository, repository / "server"]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, roots))},
    )
    with child:
        assert child.stdout
        ids = [child.stdout.readline().strip() for _ in range(request.param)]
        child.send_signal(signal.SIGKILL)
        return ids + [line.strip() for line in child.stdout if line.endswith("\n")]


async def test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_acknowledged(
    path: Path, clock: Clock, acknowledged: list[str]
) -> None:
    assert all(acknowledged), "the child ended by itself"
    store = await opened(path, clock)
    found = (await store.get(acknowledged)).jobs
    assert [job.id if job else None for job in found] == acknowledged
    repeats = await store.create([new_job(id, submission=b"x" * 200, request_key=id.encode()) for id in acknowledged])
    assert {repeat.outcome for repeat in repeats} == {CreateOutcome.EXISTED}
    assert not await invariants.broken(store)
    await store.close()


async def test_a_server_that_stood_still_takes_no_lease_back_at_once(clock: Clock) -> None:
    """SIGSTOP, a suspended machine: no worker could renew, and all of them would lose what they hold."""
    store = SqliteStore(None, clock=clock)
    await store.open()
    await put(store, "j")
    await claim(store, wish("w", lease=5, delivery=0))
    clock.now += 4 * SECOND
    assert (await store.overdue(limit=9)).jobs == []
    clock.now += 12 * SECOND
    for _ in range(5):
        assert (await store.overdue(limit=9)).jobs == []
        clock.now += SECOND
    assert [job.id for job in (await store.overdue(limit=9)).jobs if job] == ["j"], "after a whole lease time"
    await store.close()


async def test_a_backup_of_memory_has_what_the_calls_beside_it_have_counted(tmp_path: Path, clock: Clock) -> None:
    """They share a transaction, which writes its counts at its end."""
    store = SqliteStore(None, clock=clock)
    await store.open()
    file = tmp_path / "backup.db"
    _, copied = await asyncio.gather(put(store, "a"), store.back_up(file, lambda number: None))
    await store.close()
    assert copied.counted.states == {JobState.QUEUED: 1}
    assert invariants.broken_at(f"sqlite:///{file}") == []
