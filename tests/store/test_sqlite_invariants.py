"""What is planted in a database by plain SQL is named; and how a database is read beside a server, or without one."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.store import invariants
from tests.store.making import put
from tests.store.stocked import stock

from jobwire_server.domain.job import DAY
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.invariants import Invariant
from jobwire_server.store.sqlite.inspection import SqliteInspection
from jobwire_server.store.sqlite.store import SqliteStore


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that nobody has open."""
    path = tmp_path_factory.mktemp("sound") / "jobs.db"

    async def make() -> None:
        store = SqliteStore(str(path))
        await store.open()
        await stock(store, time.time_ns() // 1000)
        await store.close()

    asyncio.run(make())
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path))


def findings(path: Path, progress: Callable[[int], None] = lambda _: None) -> list[str]:
    return invariants.findings(SqliteInspection(str(path)).run(progress))


def execute(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


_DETAIL = "INSERT OR REPLACE INTO detail SELECT number, NULL, '{}' FROM job WHERE id = '{}'"
_TWICE = '[[2,"w",0,0,"failed","",null],[1,"w",0,0,"failed","",null]]'
_EMPTY_INDEX = """
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = sql || ' WHERE 0' WHERE name = 'job_by_state';
PRAGMA writable_schema = RESET;
REINDEX job_by_state;
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, ' WHERE 0', '') WHERE name = 'job_by_state';
"""

PLANTS: dict[Invariant, list[tuple[str, str]]] = {
    # what to do, and how the finding goes on
    Invariant.COUNTER: [
        ("UPDATE queue_count SET n = n + 1 WHERE state = 'queued'", "default queued: counted 2, there are 1"),
        ("DELETE FROM queue_count WHERE state = 'in_progress'", "default in_progress: counted 0, there are 2"),
        ("INSERT INTO queue_count VALUES ('x', 'failed', 3)", "x failed: counted 3, there are 0"),
    ],
    Invariant.ORPHAN: [
        ("INSERT INTO submission VALUES (99, x'00')", "number 99: submission"),
        ("INSERT INTO detail VALUES (99, NULL, '[]')", "number 99: detail"),
    ],
    Invariant.UNREADABLE: [
        ("UPDATE job SET user_id = CAST(x'c328' AS TEXT) WHERE id = 'waits'", "waits: UnicodeDecodeError"),
        ("UPDATE job SET retry = '[' WHERE id = 'waits'", "waits: JSONDecodeError"),
        (_DETAIL.format("[1]", "waits"), "waits: TypeError"),
    ],
    Invariant.VERSION: [("UPDATE job SET revision = version + 1 WHERE id = 'held'", "held: version 2, revision 3")],
    Invariant.ORDER: [("UPDATE job SET queue_time = NULL WHERE id = 'waits'", "waits: queue_time None")],
    Invariant.DUE: [("UPDATE job SET schedule_time = 5 WHERE id = 'later'", "later: due at")],
    Invariant.LEASE: [
        ("UPDATE job SET token = NULL WHERE id = 'held'", "held: no token"),
        ("UPDATE job SET limit_time = 5 WHERE id = 'held'", "held: ends at 5"),
    ],
    Invariant.NO_LEASE: [("UPDATE job SET acknowledged = 1 WHERE id = 'done'", "done: completed")],
    Invariant.FINISH: [("UPDATE job SET finish_time = NULL WHERE id = 'done'", "done: completed at None")],
    Invariant.ATTEMPT: [("UPDATE job SET attempt = 1 WHERE id = 'done'", "done: attempt 1 stands after attempt 1")],
    Invariant.HISTORY: [(_DETAIL.format(_TWICE, "done"), "done: attempts [2, 1]")],
    Invariant.BUDGET: [("UPDATE job SET retry_count = -1 WHERE id = 'held'", "held: retry_count -1")],
    Invariant.QUEUE_TIME_TWICE: [
        (
            "UPDATE job SET queue_time = (SELECT queue_time FROM job WHERE id = 'held2') WHERE id = 'held'",
            "held, held2: default at",
        )
    ],
    Invariant.TOKEN_TWICE: [
        ("UPDATE job SET token = (SELECT token FROM job WHERE id = 'held2') WHERE id = 'held'", "held, held2")
    ],
    Invariant.QUEUE_UNLISTED: [("DELETE FROM queue", "done: default")],
    Invariant.QUEUE_LAST: [("UPDATE queue SET last_queue_time = 5", "waits: ")],
    Invariant.QUEUE_SETTINGS: [
        ("UPDATE queue SET ageing = -1", "default: ageing -1"),
        ("UPDATE queue SET max_in_flight = 0", "default: max_in_flight 0"),
        ("UPDATE queue SET revision = -1", "default: revision -1"),
    ],
    Invariant.TALLY: [
        ("UPDATE queue SET completed = 0", "default: completed 0, there are 1"),
        ("UPDATE mark SET created = 6", "default: created 5, at a mark 6"),
        ("UPDATE queue SET retried = -1", "default: retried -1, at a mark "),
        ("UPDATE mark SET queue = 'x'", "x: marks of no queue"),
    ],
    Invariant.HOLDER: [("DELETE FROM worker", "held: w")],
    Invariant.CREDIT: [("UPDATE worker SET held = held - 1", "w: counted 1, there are 2")],
    Invariant.CREDIT_STRAY: [
        ("UPDATE worker SET held = held + 1", "w: counted 3, there are 2"),
        ("UPDATE job SET worker_id = 'x' WHERE id = 'held'", "w: counted 2, there are 1"),
    ],
    Invariant.REMEMBERED: [(f"UPDATE request SET expire_time = expire_time + {9 * DAY}", "request 6b6579 of waits: ")],
    Invariant.FILE: [(_EMPTY_INDEX, "row 1 missing from index job_by_state")],
}

NOT_HERE = {
    # SQLite derives its indices from the rows, and checks them itself: FILE.
    *(Invariant.STATE_INDEX, Invariant.EXPIRY_INDEX, Invariant.USER_INDEX),
    *(Invariant.STATE_STRAY, Invariant.EXPIRY_STRAY, Invariant.USER_STRAY),
    Invariant.INDEX_OF_NOTHING,
    # Here a record and its place in the list are one row, and what stands beside it is joined.
    *(Invariant.QUEUE_HALF, Invariant.WORKER_HALF, Invariant.BESIDE),
    # Nothing passes away by itself, and the schema says what may be there.
    *(Invariant.PASSING, Invariant.FOREIGN, Invariant.KIND),
}


def test_every_invariant_has_a_plant_or_cannot_be_broken_here() -> None:
    assert PLANTS.keys() | NOT_HERE == set(Invariant)
    assert not PLANTS.keys() & NOT_HERE


def test_a_sound_database_has_no_findings(path: Path) -> None:
    examination = SqliteInspection(str(path)).run(lambda _: None)
    assert invariants.findings(examination) == []
    assert (examination.jobs, examination.queues, examination.workers) == (5, 1, 1)


@pytest.mark.parametrize(
    ("invariant", "sql", "what"), [(invariant, *plant) for invariant, plants in PLANTS.items() for plant in plants]
)
def test_a_plant_is_named(path: Path, invariant: Invariant, sql: str, what: str) -> None:
    execute(path, sql)
    found = findings(path)
    assert [each for each in found if each.startswith(f"{invariant}: {what}")], found


def test_one_job_that_cannot_be_read_hides_no_other(path: Path) -> None:
    execute(path, "UPDATE job SET retry = '[' WHERE id = 'held'; UPDATE job SET token = NULL WHERE id = 'held2'")
    assert [each.split(":")[1].strip() for each in findings(path)] == ["held", "held2"]


def test_a_file_with_a_torn_page_is_damaged_and_the_reading_ends_there(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 3)
    assert any(each.startswith(Invariant.FILE) for each in findings(path))


# --- live, or not -------------------------------------------------------------------------------------------


def listing(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.parent.iterdir()}


def test_reading_a_database_that_nobody_has_open_leaves_nothing_behind(path: Path) -> None:
    before = listing(path)
    assert findings(path) == []
    assert listing(path) == before


async def test_a_database_is_read_beside_its_server_with_what_is_not_in_the_file_yet(path: Path) -> None:
    store = SqliteStore(str(path))
    await store.open()
    await put(store, "new")
    before = listing(path)[path.name]
    examination = SqliteInspection(str(path)).run(lambda _: None)
    assert (examination.jobs, invariants.findings(examination)) == (6, [])
    assert listing(path)[path.name] == before
    await put(store, "newer")
    await store.close()
    assert findings(path) == []


def test_a_database_that_a_crashed_server_left_is_read_with_its_log(path: Path, tmp_path: Path) -> None:
    writer = apsw.Connection(str(path))
    writer.execute("UPDATE job SET retry_count = -1 WHERE id = 'held'")
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), crashed)
    writer.close()
    assert findings(crashed / path.name) == [f"{Invariant.BUDGET}: held: retry_count -1"]


def test_a_server_that_starts_while_its_database_is_read_makes_it_read_again(path: Path) -> None:
    began: list[Any] = []

    def begin(_: int) -> None:
        if not began:
            execute(path, "UPDATE job SET retry_count = -1 WHERE id = 'held'")
            began.append(apsw.Connection(str(path)))
            began[0].execute("UPDATE job SET retry_count = -2 WHERE id = 'held2'")

    found = findings(path, begin)
    began[0].close()
    assert found == [f"{Invariant.BUDGET}: held: retry_count -1", f"{Invariant.BUDGET}: held2: retry_count -2"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("PRAGMA application_id = 7", "no database of jobwire's"),
        ("PRAGMA user_version = 99", "schema 99"),
        ("DROP TABLE request", "no such table"),
    ],
)
def test_what_is_no_database_of_ours_is_refused(path: Path, damage: str, says: str) -> None:
    execute(path, damage)
    with pytest.raises(CannotOpen, match=says):
        findings(path)


def test_what_is_no_database_at_all_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.db", tmp_path / "text.db", tmp_path):
        if path.name == "text.db":
            path.write_text("jobs " * 1000)
        with pytest.raises(CannotOpen, match=path.name):
            findings(path)


def test_a_log_that_cannot_be_read_is_said_with_the_rights_it_takes(path: Path) -> None:
    path.with_name(f"{path.name}-wal").mkdir()
    with pytest.raises(CannotOpen, match="-wal and -shm"):
        findings(path)
