"""`jobwire migrate`: what it says, how it ends, and what is left where it was killed."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest
from click.testing import CliRunner, Result
from tests.server_process import serving
from tests.store import invariants
from tests.store.making import new_job
from tests.store.planting import set_field
from tests.store.stocked import stock
from tests.valkey_process import Keyspace

from jobwire_server.app import open_store, target_of
from jobwire_server.cli import main
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.redis.keys import Keys

MANY = 30_000
"""Jobs of a copy that is killed after its first few hundred."""


@pytest.fixture(params=["sqlite", "valkey"])
def engine(request: pytest.FixtureRequest) -> str:
    """Of the store that is made; the other one is a file."""
    return str(request.param)


@pytest.fixture
def target(keyspace: Keyspace | None, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/target.db" if keyspace is None else keyspace.url


@pytest.fixture
def origin(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/origin.db"


def stocked(url: str, many: int = 0) -> None:
    async def fill() -> None:
        store = open_store(url)
        await store.open()
        await stock(store, time.time_ns() // 1000)
        for first in range(0, many, 1000):
            await store.create([new_job(f"many{n}", queue="many") for n in range(first, first + 1000)], brief=True)
        await store.close()

    asyncio.run(fill())


def shown(url: str) -> str:
    """Its password is not."""
    return target_of(url).url


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["migrate", *arguments], env=environment)


def test_people_are_told_what_was_read_and_what_the_new_store_counts(origin: str, target: str) -> None:
    stocked(origin)
    ran = run("--from", origin, "--to", target)
    assert ran.exit_code == 0, ran.output
    first, _, heading, *rows = ran.output.splitlines()
    assert re.fullmatch(
        rf"{re.escape(origin)} → {re.escape(shown(target))}: 5 jobs in \d+\.\d s, [\d,]+ a second", first
    )
    assert heading.split() == ["read", "in", "the", "target"]
    assert [row.split() for row in rows] == [
        ["completed", "1", "1"],
        ["in_progress", "2", "2"],
        ["queued", "1", "1"],
        ["scheduled", "1", "1"],
        ["jobs", "5", "5"],
        ["queues", "1", "1"],
        ["workers", "1", "1"],
        ["request", "ids", "1"],
    ]
    assert invariants.broken_at(target) == []


def test_programs_are_told_the_same_and_the_way_back_is_open(origin: str, target: str, tmp_path: Path) -> None:
    stocked(origin)
    assert run(JOBWIRE_FROM=origin, JOBWIRE_TO=target).exit_code == 0
    back = f"sqlite:///{tmp_path}/back.db"
    ran = run("--from", target, "--to", back, "--output", "json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    assert told.pop("seconds") >= 0
    counted = {
        "jobs": 5,
        "states": {"completed": 1, "in_progress": 2, "queued": 1, "scheduled": 1},
        "queues": 1,
        "workers": 1,
    }
    assert told == {
        "from": shown(target),
        "to": back,
        "equal": True,
        "read": counted | {"request_ids": 1},
        "counted": counted,
        "unreadable": {"count": 0, "first": []},
    }


def test_a_job_that_cannot_be_read_is_named_and_the_exit_code_says_so(
    origin: str, target: str, keyspace: Keyspace | None, tmp_path: Path
) -> None:
    stocked(target)
    if keyspace is None:
        connection = apsw.Connection(f"{tmp_path}/target.db")
        connection.execute("UPDATE job SET progress = '{' WHERE id = 'held'")
        connection.close()
    else:
        with keyspace.server.client() as client:
            set_field(client, Keys(keyspace.prefix).tag, "held", "score", "x")
    ran = run("--from", target, "--to", origin)
    assert ran.exit_code == 1
    assert "\n1 could not be read and stayed behind:\n  job held: " in ran.output
    assert "jobs                     4               4\n" in ran.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--from", "memory://"), 2, "memory:// lives within its own server only"),
        (("--from", "sqlite:///gone.db"), 3, "gone.db: No such file"),
        (("--from", "redis://127.0.0.1:1/0"), 3, "cannot read redis://127.0.0.1:1/0: "),
        ((), 2, "Missing option '--from'"),
    ],
)
def test_what_cannot_be_copied_is_refused_in_one_line(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    ran = run(*arguments, "--to", f"sqlite:///{tmp_path}/target.db")
    assert (ran.exit_code, said in ran.output) == (code, True), ran.output
    assert "Traceback" not in ran.output
    assert not (tmp_path / "target.db").exists()


def test_a_served_store_is_refused_until_its_server_has_gone(target: str, tmp_path: Path) -> None:
    to = f"sqlite:///{tmp_path}/to.db"
    with serving(target, tmp_path / "server.log") as server:
        ran = run("--from", target, "--to", to)
        assert ran.exit_code == 3, ran.output
        assert "is in use by process" in ran.output or "a server is at work on" in ran.output
        server.terminate()
    assert run("--from", target, "--to", to).exit_code == 0


def test_a_copy_that_is_killed_leaves_no_store_and_the_next_one_completes_it(
    origin: str, target: str, keyspace: Keyspace | None, tmp_path: Path
) -> None:
    stocked(origin, MANY)
    command = [sys.executable, "-m", "jobwire_server", "migrate", "--from", origin, "--to", target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as copying:
        while not _has_jobs(keyspace, tmp_path / "target.db"):
            assert copying.poll() is None, copying.communicate()
        copying.kill()
    assert copying.returncode == -9, "it had ended before"

    with pytest.raises(CannotOpen, match="is half filled: copying "):
        asyncio.run(open_store(target).open())
    assert run("--from", target, "--to", f"sqlite:///{tmp_path}/third.db").exit_code == 3
    ran = run("--from", origin, "--to", target, "--output", "json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    assert told["counted"]["jobs"] == told["read"]["jobs"] == MANY + 5
    assert invariants.broken_at(target) == []


def _has_jobs(keyspace: Keyspace | None, file: Path) -> bool:
    if keyspace is not None:
        with keyspace.server.client() as client:
            return bool(client.zcard(f"{Keys(keyspace.prefix).tag}:q:many:queued"))
    if not file.with_name(file.name + "-wal").exists():
        return False
    connection = apsw.Connection(str(file), apsw.SQLITE_OPEN_READONLY)
    try:
        return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM job WHERE queue = 'many')").get)
    except apsw.SQLError:  # its tables are being made
        return False
    finally:
        connection.close()
