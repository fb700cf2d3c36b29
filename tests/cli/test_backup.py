"""`jobwire backup` and `restore`: of a store at work, into one that is empty."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import grpc
import pytest
from click.testing import CliRunner, Result
from tests.cli.test_migrate import stocked
from tests.server_process import serving
from tests.store import invariants
from tests.store.making import claim, wish
from tests.store.making import new_job as new_stored_job
from tests.store.planting import set_field
from tests.valkey_process import Keyspace

from jobwire.v1.admin_service_pb2 import BackupResponse
from jobwire.v1.admin_service_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from jobwire_client import Client, new_job
from jobwire_server.app import back_up, open_store
from jobwire_server.cli import main
from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.job import JobState
from jobwire_server.store.base import CannotOpen, Store
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.whole_file import whole_file


@pytest.fixture(params=["sqlite", "valkey"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(keyspace: Keyspace | None, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db" if keyspace is None else keyspace.url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


async def counted(store: Store) -> dict[JobState, int]:
    return (await store.count(JobFilter())).by_state


async def test_a_backup_of_a_store_at_work_is_sound_and_has_all_that_was_there_before(url: str, file: Path) -> None:
    store = open_store(url)
    await store.open()
    for first in range(0, 3000, 500):
        await store.create([new_stored_job(f"before{n}") for n in range(first, first + 500)], brief=True)
    making = asyncio.create_task(asyncio.to_thread(back_up, url, file, lambda number: None))
    lives = 0
    while not making.done() or lives < 3:
        await store.create([new_stored_job(f"meanwhile{lives}-{n}", queue=f"q{lives % 7}") for n in range(20)])
        jobs = (await claim(store, wish("w", 20))).jobs
        await store.move([policy.complete(job.id, job.token or b"", b"result" * 50) for job in jobs])
        lives += 1
    found = await making
    await store.close()
    assert invariants.broken_at(f"sqlite:///{file}") == []
    copy = open_store(f"sqlite:///{file}")
    await copy.open()
    assert await counted(copy) == found.counted.states
    assert None not in (await copy.get([f"before{n}" for n in range(3000)])).jobs
    await copy.close()


def test_what_was_backed_up_is_restored_into_any_empty_store(url: str, file: Path, tmp_path: Path) -> None:
    stocked(url)
    ran = run("backup", file, JOBWIRE_STORE=url)
    assert ran.exit_code == 0, ran.output
    assert "jobs                     5               5\n" in ran.output
    assert "request ids              1\n" in ran.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir() if "part" in each.name] == []
    other = f"sqlite:///{tmp_path}/other.db"
    ran = run("restore", file, "--store", other, "--output", "json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    assert (told["from"], told["to"], told["counted"]["jobs"]) == (f"sqlite:///{file}", other, 5)
    assert invariants.broken_at(other) == []
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith("backup")) == ["backup.db"]


def test_a_store_that_was_lost_comes_back_from_its_backup(
    url: str, file: Path, keyspace: Keyspace | None, tmp_path: Path
) -> None:
    stocked(url)
    assert run("backup", file, "--store", url).exit_code == 0
    if keyspace is None:
        (tmp_path / "jobs.db").unlink()
    else:
        keyspace.server.flush()
    assert run("restore", file, "--store", url).exit_code == 0
    assert invariants.broken_at(url) == []
    ran = run("restore", file, "--store", url)
    assert ran.exit_code == 3
    assert "is not empty: it holds 5 jobs" in ran.output


def test_a_file_that_is_there_is_not_replaced(url: str, file: Path) -> None:
    stocked(url)
    file.write_bytes(b"mine")
    ran = run("backup", file, "--store", url)
    assert ran.exit_code == 3
    assert f"{file} is there already, and is not replaced" in ran.output
    assert file.read_bytes() == b"mine"


def test_a_file_that_came_to_be_there_meanwhile_is_not_replaced_either(file: Path) -> None:
    def write() -> None:
        with whole_file(file) as part:
            part.write_bytes(b"whole")
            file.write_bytes(b"mine")

    with pytest.raises(CannotOpen, match="is there already"):
        write()
    assert file.read_bytes() == b"mine"
    assert [each.name for each in file.parent.iterdir()] == ["backup.db"]


def test_a_backup_that_fails_leaves_no_file(tmp_path: Path, file: Path) -> None:
    ran = run("backup", file, "--store", f"sqlite:///{tmp_path}/none.db")
    assert ran.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_broken_backup_is_not_restored(file: Path, tmp_path: Path) -> None:
    stocked(f"sqlite:///{file}")
    connection = apsw.Connection(str(file))
    connection.execute("UPDATE job SET version = 0 WHERE id = 'held'")
    connection.close()
    ran = run("restore", file, "--store", f"sqlite:///{tmp_path}/target.db")
    assert ran.exit_code == 1
    assert f"{file}: 1 invariant broken, so that nothing was written; `jobwire fsck` says which" in ran.output
    assert not (tmp_path / "target.db").exists()


@pytest.mark.parametrize("engine", ["valkey"], indirect=True)
def test_a_job_that_cannot_be_read_is_named_and_not_in_the_backup(url: str, keyspace: Keyspace, file: Path) -> None:
    stocked(url)
    with keyspace.server.client() as client:
        set_field(client, Keys(keyspace.prefix).tag, "held", "score", "x")
    ran = run("backup", file, "--store", url)
    assert ran.exit_code == 1
    assert "1 could not be read and stayed behind:\n  job held: " in ran.output
    assert invariants.broken_at(f"sqlite:///{file}") == []


@pytest.mark.parametrize("kept", [1, 99, 4095, 4096, 0.5, -4096, -1])
def test_a_backup_that_is_cut_off_is_not_restored(file: Path, tmp_path: Path, kept: float) -> None:
    """So many of its bytes are there, that share of them, or all but so many."""
    origin = f"sqlite:///{tmp_path}/origin.db"
    stocked(origin, many=200)
    assert run("backup", file, "--store", origin).exit_code == 0
    size = file.stat().st_size
    os.truncate(file, int(size * kept) if 0 < kept < 1 else int(kept % size))
    ran = run("restore", file, "--store", f"sqlite:///{tmp_path}/target.db")
    assert ran.exit_code == 3
    assert f"{file} is no" in ran.output  # no database of ours, or not all of one
    assert not (tmp_path / "target.db").exists()


@pytest.mark.parametrize("engine", ["memory", "sqlite", "valkey"], indirect=True)
def test_a_server_backs_its_store_up_for_whoever_asks(
    engine: str, keyspace: Keyspace | None, file: Path, tmp_path: Path
) -> None:
    own = f"sqlite:///{tmp_path}/jobs.db" if engine == "sqlite" else "memory://"
    with serving(own if keyspace is None else keyspace.url, tmp_path / "log") as server:
        with Client(server.address) as client:
            client.create_many(new_job("x", {"text": "x" * 5000}, id=f"job{n}") for n in range(1000))
        ran = run("backup", file, "--address", server.address, "--output", "json", JOBWIRE_STORE="sqlite:///none.db")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    assert (told["from"], told["to"], told["equal"]) == (server.address, str(file), True)
    assert told["read"]["states"] == told["counted"]["states"] == {"queued": 1000}
    other = f"sqlite:///{tmp_path}/other.db"
    assert run("restore", file, "--store", other).exit_code == 0
    assert invariants.broken_at(other) == []
    assert [each.name for each in tmp_path.iterdir() if "part" in each.name or "jobwire-backup" in each.name] == []


class Unreliable(AdminServiceServicer):
    """A server whose backups end before their end."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def Backup(self, _: object, context: grpc.ServicerContext) -> Iterator[BackupResponse]:
        yield BackupResponse(data=b"half")
        context.set_code(self._code)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [(grpc.StatusCode.OK, 1), (grpc.StatusCode.UNAVAILABLE, 3), (grpc.StatusCode.INTERNAL, 1)],
)
def test_half_an_answer_becomes_no_file(file: Path, code: grpc.StatusCode, exit_code: int) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = Unreliable(code)  # type: ignore[abstract]  # of the stubs alone: nobody calls the others
    add_AdminServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ran = run("backup", file, "--address", f"127.0.0.1:{port}")
    server.stop(0).wait()
    assert (ran.exit_code, "jobwire: " in ran.output) == (exit_code, True)
    assert [*file.parent.iterdir()] == []


@pytest.mark.parametrize("engine", ["valkey"], indirect=True)
def test_what_its_server_could_not_read_is_named_as_well(
    url: str, keyspace: Keyspace, file: Path, tmp_path: Path
) -> None:
    stocked(url)
    with keyspace.server.client() as client:
        set_field(client, Keys(keyspace.prefix).tag, "waits", "score", "x")
    with serving(url, tmp_path / "log") as server:
        ran = run("backup", file, "--address", server.address)
    assert ran.exit_code == 1
    assert "1 could not be read and stayed behind:\n  job waits: " in ran.output
    assert invariants.broken_at(f"sqlite:///{file}") == []


def test_a_store_and_a_server_are_not_asked_both(file: Path) -> None:
    ran = run("backup", file, "--store", "sqlite:///x.db", "--address", "127.0.0.1:1")
    assert (ran.exit_code, "name one of them" in ran.output) == (2, True)


def test_of_a_store_in_memory_its_server_is_asked(file: Path) -> None:
    ran = run("backup", file, "--store", "memory://")
    assert (ran.exit_code, "can ask it by --address" in ran.output) == (2, True)
