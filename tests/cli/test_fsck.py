"""`jobwire fsck`: what it says, how it ends, and that a store at work gives it nothing to say."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner, Result
from google.protobuf.duration_pb2 import Duration
from tests.server_process import ServerProcess, serving
from tests.store.making import new_job
from tests.store.planting import set_field
from tests.store.stocked import stock
from tests.valkey_process import Keyspace

from jobwire.v1.job_pb2 import RetryPolicy
from jobwire_client import AsyncClient, JobContext, JobwireError, Worker
from jobwire_client import new_job as job_of
from jobwire_server import fsck, progress
from jobwire_server.app import open_store
from jobwire_server.cli import main
from jobwire_server.store.examination import Examination, Progress
from jobwire_server.store.invariants import Invariant
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.sqlite.inspection import SqliteInspection


@pytest.fixture(params=["sqlite", "valkey"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db" if keyspace is None else keyspace.url


def stocked(url: str) -> None:
    async def fill() -> None:
        store = open_store(url)
        await store.open()
        await stock(store, time.time_ns() // 1000)
        await store.create([new_job(f"many{n:02}", queue="many") for n in range(fsck.SHOWN + 2)])
        await store.close()

    asyncio.run(fill())


def plant(keyspace: Keyspace | None, tmp_path: Path) -> None:
    """A version that was never given, in a few jobs and in many."""
    if keyspace is None:
        connection = apsw.Connection(f"{tmp_path}/jobs.db")
        connection.execute(
            "UPDATE job SET version = 0 WHERE queue = 'many'; UPDATE job SET attempt = -1 WHERE id = 'held'"
        )
        connection.close()
        return
    tag = Keys(keyspace.prefix).tag
    with keyspace.server.client() as client:
        for n in range(fsck.SHOWN + 2):
            set_field(client, tag, f"many{n:02}", "version", "0")
        set_field(client, tag, "held", "attempt", "-1")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["fsck", *arguments], env=environment)


def test_a_sound_store_is_said_to_be_so_with_what_was_seen(url: str) -> None:
    stocked(url)
    ran = run("--store", url)
    assert ran.exit_code == 0, ran.output
    assert re.fullmatch(rf"{re.escape(url)} is sound: 17 jobs, 2 queues, 1 worker, read in \d+\.\d s\n", ran.output)


def test_what_is_broken_is_named_by_invariant_and_cut_short_for_people(
    url: str, keyspace: Keyspace | None, tmp_path: Path
) -> None:
    stocked(url)
    plant(keyspace, tmp_path)
    ran = run("--store", url)
    assert ran.exit_code == 1
    assert ran.output.startswith(f"{url}: 3 invariants broken (17 jobs, 2 queues, 1 worker, read in ")
    found = re.split(r"\n\n", ran.output)[1:-1]
    by_name = {block.splitlines()[0]: block.splitlines()[1:] for block in found}
    assert by_name[f"{Invariant.ATTEMPT} (ATTEMPT, 1)"] == ["  held: attempt -1 stands after attempt 0"]
    assert by_name[f"{Invariant.BUDGET} (BUDGET, 1)"] == ["  held: attempt -1"]
    many = by_name[f"{Invariant.VERSION} (VERSION, {fsck.SHOWN + 2})"]
    assert len(many) == fsck.SHOWN + 1
    assert many[-1] == "  and 2 more"


def test_programs_are_told_all_of_it_as_json(url: str, keyspace: Keyspace | None, tmp_path: Path) -> None:
    stocked(url)
    plant(keyspace, tmp_path)
    ran = run("--output", "json", JOBWIRE_STORE=url)
    assert ran.exit_code == 1
    told = json.loads(ran.output)
    seconds, broken = told.pop("seconds"), {each["invariant"]: each for each in told.pop("broken")}
    assert seconds >= 0
    assert told == {
        "store": url,
        "sound": False,
        "jobs": 17,
        "states": {"completed": 1, "in_progress": 2, "queued": 13, "scheduled": 1},
        "queues": 2,
        "workers": 1,
    }
    assert broken.keys() == {"ATTEMPT", "BUDGET", "VERSION"}
    assert broken["VERSION"]["sentence"] == Invariant.VERSION
    assert broken["VERSION"]["count"] == len(broken["VERSION"]["findings"]) == fsck.SHOWN + 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--store", "memory://"], 2, "seen by its own server only"),
        (["--store", "postgres://ann:secret@host/db"], 2, "postgres is no store"),
        (["--store", "redis://:secret@host:port"], 2, "port"),
        (["--output", "xml"], 2, "--output"),
        (["--store", "sqlite:///none.db"], 3, "none.db: No such file"),
        (["--store", "redis://ann:secret@127.0.0.1:1"], 3, "cannot read redis://ann:***@127.0.0.1:1"),
    ],
)
def test_what_cannot_be_read_ends_otherwise_than_what_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments)
    assert (ran.exit_code, ran.stdout) == (code, "")
    assert says in ran.stderr
    assert "secret" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_password_on_the_command_line_is_warned_of_and_one_in_the_environment_is_not() -> None:
    url = "redis://:secret@127.0.0.1:1"
    assert "use JOBWIRE_STORE" in run("--store", url).stderr
    assert "use JOBWIRE_STORE" not in run(JOBWIRE_STORE=url).stderr


def test_ctrl_c_is_not_taken_for_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: SqliteInspection, progress: Progress) -> Examination:
        raise KeyboardInterrupt

    monkeypatch.setattr(SqliteInspection, "run", interrupted)
    assert run("--store", f"sqlite:///{tmp_path}/jobs.db").exit_code == 130


def test_what_is_damaged_gives_no_orders_to_the_terminal() -> None:
    examination = Examination(print)
    examination.find(Invariant.UNREADABLE, "\x1b[2J\rjob: é")
    assert "  \\x1b[2J\\rjob: é\n" in fsck.as_text("url", examination, 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_nothing_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_BETWEEN", 0)
    line = "\r\x1b[K1 job read …\r\x1b[K2,000 jobs read …\r\x1b[K"
    for stream, shown in ((Terminal(), line), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        told = progress.ProgressLine()
        told(1)
        told(2000)
        told.clear()
        assert stream.getvalue() == shown


def test_the_manual_says_of_each_invariant_what_to_do(repository: Path) -> None:
    manual = (repository / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| [^|]{20,} \|$", manual, re.MULTILINE)
    assert rows == [(invariant.name, str(invariant)) for invariant in Invariant]


# --- a store at work ----------------------------------------------------------------------------------------

WAITING = 2_000
"""Jobs that only make the reading longer."""
ROUNDS = 5
"""Readings in which jobs must have moved."""
PATIENCE = 40
"""Readings after which the test gives up on that."""
AHEAD = 200
"""Jobs that wait for a worker, at least."""


@pytest.fixture
def server(url: str, tmp_path: Path) -> Any:
    with serving(url, tmp_path / "server.log") as process:
        yield process


class Flow:
    """Jobs on their way through a server: completed, failed and tried again, removed at their end."""

    def __init__(self, client: AsyncClient, worker: Worker) -> None:
        self._client = client
        self._created = 0
        self._ran = asyncio.Event()
        self.run = 0
        worker.handler("work")(self._work)

    async def _work(self, context: JobContext) -> str:
        self.run += 1
        self._ran.set()
        if context.text == "fragile" and context.job.attempt == 1:
            raise ConnectionError("once")
        return "done"

    async def produce(self) -> None:
        quick = RetryPolicy(initial_delay=Duration(nanos=1_000_000))
        expires: dict[str, Any] = {"expire_time": datetime.now(UTC) + timedelta(days=1)}
        vanishes: dict[str, Any] = {"retention": timedelta(0)}
        while True:
            jobs = [
                job_of(
                    "work",
                    "fragile" if n % 7 == 0 else "sound",
                    queue=f"q{n % 3}",
                    user_id=f"user{n % 5}",
                    retry_policy=quick,
                    **(expires if n % 2 else {}),
                    **(vanishes if n % 5 else {}),
                )
                for n in range(AHEAD)
            ]
            await self.create(jobs)
            self._created += len(jobs)
            while self._created - self.run >= AHEAD:
                self._ran.clear()
                await self._ran.wait()

    async def create(self, jobs: list[Any]) -> None:
        for made in await self._client.create_many(jobs):
            assert not isinstance(made, JobwireError), made


async def told(url: str) -> dict[str, Any]:
    """What `jobwire fsck` says, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobwire_server", "fsck", "--store", url, "--output", "json"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    found: dict[str, Any] = json.loads(output)
    assert process.returncode == (0 if found["sound"] else 1)
    return found


@pytest.mark.timeout(300)
async def test_a_store_at_work_breaks_nothing_however_often_it_is_read(server: ServerProcess, url: str) -> None:
    worker = Worker(server.address, queues=["q0", "q1", "q2"], concurrency=50)
    moved = 0
    async with AsyncClient(server.address) as client, asyncio.TaskGroup() as tasks:
        flow = Flow(client, worker)
        await flow.create([job_of("work", queue="waiting", user_id="ann") for _ in range(WAITING)])
        working, producing = tasks.create_task(worker.run()), tasks.create_task(flow.produce())
        for _ in range(PATIENCE):
            before = flow.run
            found = await told(url)
            assert found["sound"], found["broken"]
            moved += flow.run > before and found["states"].get("in_progress", 0) > 0
            if moved == ROUNDS:
                break
        producing.cancel()
        worker.stop()
        await working
    assert moved == ROUNDS, "it was hardly ever read while jobs moved: the test proves nothing"
