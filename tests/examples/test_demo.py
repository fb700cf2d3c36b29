"""The demo: it proves what it says, it can fail, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.valkey_process import ValkeyProcess, valkey_binary
from tests.valkey_process import running as engine_running

from jobwire_client import Client, Unavailable

PATIENCE = 100.0
"""Seconds after which a demo counts as hanging."""
FEW = "1000"
"""Jobs: as few as it takes."""


@dataclass
class Demo:
    """One that runs."""

    process: subprocess.Popen[str]
    folder: Path
    """It keeps its temporary folder in here."""
    said: list[str] = field(default_factory=list)

    def until(self, words: str) -> str:
        """Reads on to the line with these words in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"it never said {words!r}: {''.join(self.said)}{self.process.communicate()[1]}")

    def address(self) -> str:
        """Of its first server."""
        found = re.search(r"A server at (\S+),", self.until("A server at"))
        assert found
        return found[1]

    def ledger(self) -> Path:
        """What its workers note."""
        [ledger] = self.folder.glob("jobwire-demo-*/ledger")
        return ledger

    def end(self) -> tuple[int, str]:
        """Its exit code and what it has said on stdout and stderr."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, "".join(self.said) + out + err


@contextmanager
def running(repository: Path, folder: Path, *arguments: str) -> Iterator[Demo]:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.python.demo", "--jobs", FEW, *arguments],
        cwd=repository,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Demo(process, folder)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def alone(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess | None]:
    """An engine that is no Cluster; None for SQLite."""
    binary = valkey_binary() if engine == "valkey" else None
    if binary is None:
        yield None
        return
    with engine_running(binary, tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
def test_it_shows_that_nothing_is_lost_and_leaves_nothing_behind(
    alone: ValkeyProcess | None, repository: Path, tmp_path: Path
) -> None:
    store = ("--store", alone.url) if alone else ()
    with running(repository, tmp_path, *store) as demo:
        code, said = demo.end()
    assert code == 0, said
    assert "All 1000 jobs have ended as they should" in said
    assert "None was lost, none was completed twice." in said
    assert "2 workers killed, 2 redeployed while they were at work" in said
    assert said.count("A server at") == (2 if alone else 1)
    assert list(tmp_path.iterdir()) == []
    if alone:
        with alone.client() as client:
            assert client.keys() == []


def test_it_fails_when_a_job_vanishes(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path) as demo:
        address = demo.address()
        demo.until("kill -9 of")
        with Client(address) as client:
            vanished = next(iter(client.list(queues=["nobody"], limit=1)))
            client.delete(vanished.id)
        code, said = demo.end()
    assert code == 1
    assert f"{vanished.id} ({vanished.type}) is lost: the server does not know it" in said


def test_it_fails_when_a_second_worker_was_told_that_it_completed_a_job(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path) as demo:
        demo.until("kill -9 of")
        job_id, fence = re.findall(r"accepted (\S+) (\d+)\n", demo.ledger().read_text())[0]
        with demo.ledger().open("a") as ledger:
            ledger.write(f"accepted {job_id} {int(fence) + 1}\n")
        code, said = demo.end()
    assert code == 1
    assert re.search(rf"{job_id} \(\w+\) was completed twice", said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_it_started(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    with running(repository, tmp_path) as demo:
        address = demo.address()
        demo.until("IN_PROGRESS")
        assert workers_of(tmp_path)
        demo.process.send_signal(number)
        code, said = demo.end()
        assert not workers_of(tmp_path)
    assert (code, "nothing of the demo is left" in said) == (130, True)
    assert is_silent(address)
    assert list(tmp_path.iterdir()) == []


def test_its_children_end_with_it_when_it_is_killed(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path) as demo:
        address = demo.address()
        demo.until("IN_PROGRESS")
        assert workers_of(tmp_path)
        demo.process.kill()
        eventually(lambda: not workers_of(tmp_path))
    eventually(lambda: is_silent(address))


def test_a_file_that_is_there_is_not_touched(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    file.write_text("somebody's")
    with running(repository, tmp_path, "--store", f"sqlite:///{file}") as demo:
        code, said = demo.end()
    assert (code, "is there already" in said) == (2, True)
    assert file.read_text() == "somebody's"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://127.0.0.1:1", "connecting to 127.0.0.1:1"),
        ("redis+cluster://127.0.0.1:1", "name the primary"),
    ],
)
def test_an_engine_that_will_not_do_is_said_so(repository: Path, tmp_path: Path, url: str, says: str) -> None:
    with running(repository, tmp_path, "--store", url) as demo:
        code, said = demo.end()
    assert (code, says in said, "Traceback" in said) == (2, True, False)


def workers_of(folder: Path) -> list[str]:
    """Processes that were told of a ledger in there."""
    found = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if f"{folder}/jobwire-demo-" in line]


def is_silent(address: str) -> bool:
    with Client(address, timeout=0.5) as client:
        try:
            client.server_info()
        except Unavailable:
            return True
    return False


def eventually(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
