"""Of what test_sqlite_invariants.py plants, what is derived is mended, and everything else stays as it is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.store.making import claim
from tests.store.test_sqlite_invariants import PLANTS, execute, findings, listing, path, sound

from jobwire_server import fsck
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.invariants import Invariant
from jobwire_server.store.sqlite.inspection import SqliteInspection
from jobwire_server.store.sqlite.repair import MENDS, SqliteRepair
from jobwire_server.store.sqlite.store import SqliteStore

__all__ = ["path", "sound"]  # fixtures


def repair(path: Path) -> None:
    SqliteRepair(str(path)).run(lambda _: None)


def repaired(path: Path) -> None:
    """As `fsck --repair` does it: nothing is touched where nothing can be mended."""
    inspection = SqliteInspection(str(path))
    fsck.repaired(inspection, SqliteRepair(str(path)), inspection.run(lambda _: None), lambda _: None)


def rows(path: Path, *tables: str) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as connection:
        connection.text_factory = bytes
        found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}
    connection.close()
    return found


TABLES = ("job", "submission", "detail", "queue", "mark", "queue_count", "request", "worker", "meta")


def planted(*, mended: bool) -> list[Any]:
    return [
        (sql, what) for invariant, plants in PLANTS.items() if (invariant in MENDS) is mended for sql, what in plants
    ]


@pytest.mark.parametrize(("sql", "what"), planted(mended=True))
def test_what_is_derived_is_mended_and_no_job_changes(path: Path, sql: str, what: str) -> None:
    execute(path, sql)
    jobs = rows(path, "job")
    assert any(what in each for each in findings(path))
    repaired(path)
    assert findings(path) == []
    assert rows(path, "job") == jobs
    assert [name for name in listing(path) if name.endswith(("-wal", "-shm"))] == []


@pytest.mark.parametrize(("sql", "what"), planted(mended=False))
def test_what_is_not_derived_stays_byte_for_byte(path: Path, sql: str, what: str) -> None:
    execute(path, sql)
    before, found = listing(path), findings(path)
    assert any(what in each for each in found)
    repaired(path)
    assert listing(path) == before
    assert findings(path) == found


@pytest.mark.parametrize(("sql", "what"), planted(mended=False))
def test_what_is_not_derived_stays_where_something_else_is_mended(path: Path, sql: str, what: str) -> None:
    execute(path, sql)
    before, found = rows(path, *TABLES), findings(path)
    execute(path, "INSERT INTO detail VALUES (99, NULL, '[]')")
    repaired(path)
    assert rows(path, *TABLES) == before
    assert findings(path) == found


def test_in_a_sound_database_nothing_changes(path: Path) -> None:
    before = rows(path, *TABLES)
    repair(path)
    assert rows(path, *TABLES) == before


async def test_a_queue_that_was_lost_gives_its_jobs_out_again(path: Path) -> None:
    execute(path, "DELETE FROM queue; DELETE FROM queue_count")
    repaired(path)
    store = SqliteStore(str(path))
    await store.open()
    assert [job.id for job in (await claim(store)).jobs] == ["waits"]
    await store.close()
    assert findings(path) == []


# --- what must not be believed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE job SET queue_time = queue_time + 3600000000 WHERE id = 'held'",
        "UPDATE job SET worker_id = 'a b' WHERE id = 'held'; UPDATE worker SET held = 1",
        "UPDATE job SET worker_id = CAST(x'c328' AS TEXT) WHERE id = 'held'; UPDATE worker SET held = 1",
    ],
    ids=["the future", "no name", "no text"],
)
def test_a_row_that_cannot_be_is_not_spread(path: Path, sql: str) -> None:
    execute(path, sql)
    before, found = rows(path, *TABLES), findings(path)
    assert found
    repair(path)
    assert rows(path, *TABLES) == before
    assert findings(path) == found


def tear_an_index(path: Path) -> tuple[int, bytes]:
    with sqlite3.connect(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'request_by_expiry'").fetchone()
    connection.close()
    return 4096 * (root - 1), b"\xff" * 4096


def miscount_free_pages(path: Path) -> tuple[int, bytes]:
    return 36, b"\0\0\0\7"


@pytest.mark.parametrize("damage", [tear_an_index, miscount_free_pages])
def test_in_a_file_that_is_damaged_otherwise_nothing_is_written(
    path: Path, damage: Callable[[Path], tuple[int, bytes]]
) -> None:
    execute(path, "UPDATE queue_count SET n = n + 1")
    at, what = damage(path)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)
    before, found = path.read_bytes(), findings(path)
    assert any(each.startswith(Invariant.FILE) for each in found)
    repaired(path)
    assert path.read_bytes() == before
    assert findings(path) == found


def test_an_index_of_many_that_lacks_entries_hides_no_other_damage(path: Path) -> None:
    """SQLite tells a hundred findings at a time: what comes after them shows when the index is made anew."""
    execute(
        path,
        """
        WITH RECURSIVE n (n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM n WHERE n < 1200)
        INSERT INTO request SELECT CAST(n AS BLOB), 'j', x'', n FROM n;
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = sql || ' WHERE 0' WHERE name = 'request_by_expiry';
        PRAGMA writable_schema = RESET;
        REINDEX request_by_expiry;
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = replace(sql, ' WHERE 0', '') WHERE name = 'request_by_expiry';
        """,
    )
    assert len(findings(path)) == 100
    repaired(path)
    assert findings(path) == []


# --- beside a server ----------------------------------------------------------------------------------------


async def test_beside_a_server_nothing_is_mended(path: Path) -> None:
    execute(path, "UPDATE queue_count SET n = n + 1")
    store = SqliteStore(str(path))
    await store.open()
    before, found = rows(path, *TABLES), findings(path)
    with pytest.raises(CannotOpen, match=f"in use by process {os.getpid()}: .*; stop it, then repair"):
        repaired(path)
    assert rows(path, *TABLES) == before
    await store.close()
    repaired(path)
    assert found
    assert findings(path) == []
