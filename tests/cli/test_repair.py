"""`jobwire fsck --repair`: what it says of each finding, how it ends, and that jobs flow on meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner, Result
from tests.server_process import serving
from tests.store import invariants
from tests.store.planting import set_field
from tests.store.stocked import stock
from tests.valkey_process import Keyspace

from jobwire.v1.job_pb2 import JobState
from jobwire_client import AsyncClient, JobContext, JobwireError, Worker
from jobwire_client import new_job as job_of
from jobwire_server.app import open_store
from jobwire_server.cli import main
from jobwire_server.store.invariants import Invariant
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.repair import MENDS as REDIS_MENDS
from jobwire_server.store.redis.repair import RedisRepair
from jobwire_server.store.sqlite.repair import MENDS as SQLITE_MENDS


@pytest.fixture(params=["sqlite", "valkey"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> str:
    """Of a store with a job for each thing that can be broken."""
    url = f"sqlite:///{tmp_path}/jobs.db" if keyspace is None else keyspace.url

    async def fill() -> None:
        store = open_store(url)
        await store.open()
        await stock(store, time.time_ns() // 1000)
        await store.close()

    asyncio.run(fill())
    return url


def plant_orphan(keyspace: Keyspace | None, tmp_path: Path) -> str:
    """What can be mended, as it is told."""
    if keyspace is None:
        _execute(tmp_path, "INSERT INTO detail VALUES (99, NULL, '[]')")
        return "number 99: detail"
    with keyspace.server.client() as client:
        client.set(f"{Keys(keyspace.prefix).tag}:detail:x", "{}")
    return "x: detail"


def plant_version(keyspace: Keyspace | None, tmp_path: Path) -> str:
    """What cannot."""
    if keyspace is None:
        _execute(tmp_path, "UPDATE job SET version = 0 WHERE id = 'held'")
        return "held: version 0, revision 2"
    with keyspace.server.client() as client:
        set_field(client, Keys(keyspace.prefix).tag, "held", "version", "0")
    return "held: version 0, revision 2"


def _execute(tmp_path: Path, sql: str) -> None:
    connection = apsw.Connection(f"{tmp_path}/jobs.db")
    connection.execute(sql)
    connection.close()


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["fsck", "--store", url, *arguments])


def blocks(ran: Result) -> list[str]:
    return ran.output.split("\n\n")[1:]


def test_what_is_mended_is_said_and_the_store_is_sound(url: str, keyspace: Keyspace | None, tmp_path: Path) -> None:
    what = plant_orphan(keyspace, tmp_path)
    ran = run(url, "--repair")
    assert ran.exit_code == 0, ran.output
    assert ran.output.startswith(f"{url} is sound: 5 jobs, 1 queue, 1 worker, read in ")
    assert blocks(ran) == [f"{Invariant.ORPHAN} (ORPHAN, 1 mended)\n  {what}\n"]
    assert run(url).exit_code == 0


def test_what_is_left_is_said_beside_what_is_mended(url: str, keyspace: Keyspace | None, tmp_path: Path) -> None:
    mended, left = plant_orphan(keyspace, tmp_path), plant_version(keyspace, tmp_path)
    ran = run(url, "--repair")
    assert ran.exit_code == 1
    assert ran.output.startswith(f"{url}: 1 invariant broken (5 jobs, ")
    assert blocks(ran)[:-1] == [
        f"{Invariant.ORPHAN} (ORPHAN, 1 mended)\n  {mended}",
        f"{Invariant.VERSION} (VERSION, 1 left)\n  {left}",
    ]
    assert run(url, "--repair").exit_code == 1


def test_programs_are_told_both_as_json(url: str, keyspace: Keyspace | None, tmp_path: Path) -> None:
    mended, left = plant_orphan(keyspace, tmp_path), plant_version(keyspace, tmp_path)
    ran = run(url, "--repair", "--output", "json")
    assert ran.exit_code == 1
    told = json.loads(ran.output)
    assert told["sound"] is False
    assert [(each["invariant"], each["count"], each["findings"]) for each in told["mended"]] == [
        ("ORPHAN", 1, [mended])
    ]
    assert [(each["invariant"], each["count"], each["findings"]) for each in told["broken"]] == [("VERSION", 1, [left])]
    again = json.loads(run(url, "--repair", "--output", "json").output)
    assert (again["mended"], again["broken"]) == ([], told["broken"])


def test_without_the_option_nothing_is_mended(url: str, keyspace: Keyspace | None, tmp_path: Path) -> None:
    what = plant_orphan(keyspace, tmp_path)
    for _ in range(2):
        ran = run(url)
        assert ran.exit_code == 1
        assert f"{Invariant.ORPHAN} (ORPHAN, 1)\n  {what}\n" in ran.output


@pytest.mark.parametrize("engine", ["sqlite"])
def test_a_server_on_sqlite_is_in_the_way_of_a_repair_only_where_there_is_one_to_make(
    url: str, keyspace: Keyspace | None, tmp_path: Path
) -> None:
    with serving(url, tmp_path / "server.log") as server:
        assert run(url, "--repair").exit_code == 0
        what = plant_orphan(keyspace, tmp_path)
        ran = run(url, "--repair")
        assert (ran.exit_code, ran.stdout) == (3, "")
        assert f"jobs.db is in use by process {server.pid}" in ran.stderr
        assert "stop it, then repair. Nothing was changed" in ran.stderr
        assert what in run(url).output
    assert run(url, "--repair").exit_code == 0


def test_the_manual_says_which_findings_are_mended(repository: Path) -> None:
    manual = (repository / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in manual.splitlines() if line.startswith("| `")]
    said = {row[0].strip("| `") for row in rows if row[-1].startswith("**Mended**")}
    assert said == {invariant.name for invariant in REDIS_MENDS | SQLITE_MENDS}


# --- a store at work ----------------------------------------------------------------------------------------

ROUNDS = 5
AT_ONCE = 30
"""Jobs of a round."""
RUNNING = 20
"""Of which so many run when the store is broken, and the others wait."""


class Saboteur:
    """Breaks, again and again, what may be mended."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._tag = Keys(keyspace.prefix).tag
        self._client = keyspace.server.client()

    def strike(self) -> None:
        """Breaks what is at hand; what was broken before may be broken still."""
        client, tag = self._client, self._tag
        waiting: Any = client.zrange(f"{tag}:q:default:queued", 0, 20)
        running: Any = client.zrange(f"{tag}:q:default:in_progress", 0, 20)
        assert waiting, "no job waits: the test proves nothing"
        assert running, "no job runs: the test proves nothing"
        client.zrem(f"{tag}:q:default:queued", *waiting)
        client.zrem(f"{tag}:q:default:in_progress", *running)
        client.zrem(f"{tag}:w:w", *running)
        client.zadd(f"{tag}:q:default:queued", dict.fromkeys(running, 5))
        for wrong in ("q:default:in_progress", "w:w", "expiry"):
            client.zadd(f"{tag}:{wrong}", dict.fromkeys(waiting[:3], 5))
        client.zadd(f"{tag}:q:default:queued", {"nothing": 1})
        client.set(f"{tag}:spec:nothing", "1")
        client.delete(f"{tag}:queues", f"{tag}:workers", *client.keys(f"{tag}:u:*"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("engine", ["valkey"])
async def test_jobs_end_once_while_their_store_is_broken_and_mended(keyspace: Keyspace, tmp_path: Path) -> None:
    runs: Counter[str] = Counter()
    gate, filled, at_gate = asyncio.Event(), asyncio.Event(), set[str]()
    with serving(keyspace.url, tmp_path / "server.log") as server:
        worker = Worker(server.address, id="w", queues=["default"], concurrency=RUNNING)

        @worker.handler("work")
        async def work(context: JobContext) -> None:
            runs[context.job.id] += 1
            at_gate.add(context.job.id)
            if len(at_gate) == RUNNING:
                filled.set()
            await gate.wait()
            at_gate.discard(context.job.id)

        async with AsyncClient(server.address) as client, asyncio.TaskGroup() as tasks:
            working = tasks.create_task(worker.run())
            saboteur, ids = Saboteur(keyspace), list[str]()
            for _ in range(ROUNDS):
                gate.clear()
                filled.clear()
                for made in await client.create_many(job_of("work", user_id="ann") for _ in range(AT_ONCE)):
                    assert not isinstance(made, JobwireError), made
                    ids.append(made.id)
                await filled.wait()
                await asyncio.to_thread(saboteur.strike)
                gate.set()  # from here on jobs move while they are put right
                await asyncio.to_thread(RedisRepair(keyspace.url).run, lambda _: None)
            ended = [await client.wait(id) for id in ids]
            worker.stop()
            await working
        await asyncio.to_thread(RedisRepair(keyspace.url).run, lambda _: None)
    assert Counter(job.state for job in ended) == {JobState.JOB_STATE_COMPLETED: len(ids)}
    assert runs == Counter(ids)
    assert invariants.broken_at(keyspace.url) == []
