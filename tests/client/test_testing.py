"""The server that users start in their own tests."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobwire_client import Client
from jobwire_client.testing import serving

PATIENCE = 30.0


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_server_serves_for_as_long_as_the_block_lasts() -> None:
    with serving() as server, Client(server.address) as client:
        assert client.get(client.create("x").id).type == "x"
    assert not listens(server.address)


def test_a_store_can_be_kept(tmp_path: Path) -> None:
    with serving(f"sqlite:///{tmp_path}/jobs.db") as server, Client(server.address) as client:
        made = client.create("x")
    with serving(f"sqlite:///{tmp_path}/jobs.db") as server, Client(server.address) as client:
        assert client.get(made.id).type == "x"


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="nonsense") as refused, serving("nonsense://"):
        pass
    assert "Fatal Python error" not in str(refused.value)


def test_the_environment_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBWIRE_LOG_LEVEL", "no such level")
    with serving() as server:
        assert listens(server.address)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux lets us wait for a grandchild")
def test_a_killed_test_run_leaves_no_server_behind() -> None:
    program = "from jobwire_client.testing import serving\nwith serving() as s: print(s.pid, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    server = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.send_signal(signal.SIGKILL)
        assert select.select([server], [], [], PATIENCE)[0], "it has not ended"
    finally:
        os.close(server)
        parent.communicate()


def test_the_fixture_is_one_server_for_a_whole_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["jobwire_client.pytest_plugin"]\n')
    (tmp_path / "test_two.py").write_text(
        "from jobwire_client import Client\n"
        "seen = set()\n"
        "def test_one(jobwire_server):\n"
        "    seen.add(jobwire_server)\n"
        "    with Client(jobwire_server.address) as client: assert client.create('x').id\n"
        "def test_other(jobwire_server):\n"
        "    seen.add(jobwire_server)\n"
        "    assert len(seen) == 1\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
