"""`jobwire serve --processes`: several servers behind one port, with a parent that keeps them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import pytest
from click.testing import CliRunner
from tests.server_process import ServerProcess, serving
from tests.valkey_process import Keyspace, ValkeyProcess

from jobwire.v1 import job_pb2
from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_server.cli import main

PATIENCE = 20
CONNECTIONS = 32
"""That the kernel gives all of them to one of two processes is a matter of 2⁻³¹."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def server(valkey: ValkeyProcess, log: Path) -> Iterator[ServerProcess]:
    valkey.flush()
    options = ("--processes", "2", "--http", "127.0.0.1:0")
    with serving(Keyspace(valkey, "processes").url, log, "127.0.0.1:0", *options) as running:
        yield running


async def seen(condition: Callable[[], bool]) -> None:
    """Returns when it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  another process changes what we look at, and tells nobody
            await asyncio.sleep(0.02)


def said(log: Path) -> str:
    return log.read_text()


def children(log: Path) -> list[int]:
    """Those that the parent began with."""
    [line] = re.findall(r"processes share the port: ([\d ]+)", said(log))
    return [int(pid) for pid in line.split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def connection(address: str) -> grpc.aio.Channel:
    """One of its own."""
    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


async def create(channel: grpc.aio.Channel, id: str) -> bool:
    request = api.CreateJobRequest(job=job_pb2.Job(id=id))
    answer = await JobServiceStub(channel).CreateJob(request, timeout=PATIENCE, wait_for_ready=True)
    return bool(answer.created)


def sockets(pid: int) -> int:
    return sum(str(fd.readlink()).startswith("socket:") for fd in Path(f"/proc/{pid}/fd").iterdir())


async def test_connections_are_spread_over_processes_that_share_one_store(server: ServerProcess, log: Path) -> None:
    await seen(lambda: "share the port" in said(log))
    pids = children(log)
    before = [sockets(pid) for pid in pids]
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connection(server.address)) for _ in range(CONNECTIONS)]
        assert all([await create(channel, f"job-{n}") for n, channel in enumerate(channels)])
        taken = [sockets(pid) - old for pid, old in zip(pids, before, strict=True)]
        assert min(taken) > 0, taken
        counted = [(await JobServiceStub(channel).CountJobs(api.CountJobsRequest())).total for channel in channels]
        assert counted == [CONNECTIONS] * CONNECTIONS


async def test_http_is_served_by_all_of_them_on_one_port(server: ServerProcess, log: Path) -> None:
    await seen(lambda: "share the port" in said(log))
    first, second = children(log)
    for stopped in (first, second):  # whichever is left answers, so both do
        os.kill(stopped, signal.SIGSTOP)
        try:
            await seen(lambda: is_ready(server.http))
        finally:
            os.kill(stopped, signal.SIGCONT)


def is_ready(address: str) -> bool:
    """Asks anew until the kernel gives the connection to one that is not stopped."""
    try:
        with urlopen(f"http://{address}/readyz", timeout=0.2) as answer:
            return bool(answer.status == 200)
    except (TimeoutError, URLError):
        return False


async def test_their_metrics_are_those_of_all_and_outlive_each(server: ServerProcess, log: Path) -> None:
    await seen(lambda: "share the port" in said(log))
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connection(server.address)) for _ in range(CONNECTIONS)]
        for n, channel in enumerate(channels):
            await create(channel, f"job-{n}")
    assert [calls(server.http) for _ in range(CONNECTIONS)] == [CONNECTIONS] * CONNECTIONS
    for child in children(log):
        os.kill(child, signal.SIGKILL)
        await seen(lambda child=child: f"process {child} has ended" in said(log))  # type: ignore[misc]  # a lambda
    async with connection(server.address) as channel:
        await create(channel, "after")
    assert calls(server.http) == CONNECTIONS + 1


def calls(address: str) -> float:
    """Creates that were answered OK, of which whoever is asked tells."""
    with urlopen(f"http://{address}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    [count] = re.findall(
        r'^grpc_server_handled_total\{.*grpc_method="CreateJob",grpc_code="OK"\} (\d+)$', text, re.MULTILINE
    )
    return float(count)


async def test_a_process_that_dies_is_followed_by_another(server: ServerProcess, log: Path) -> None:
    await seen(lambda: "share the port" in said(log))
    first, second = children(log)
    os.kill(first, signal.SIGKILL)
    await seen(lambda: f"process {first} has ended (signal 9)" in said(log))
    os.kill(second, signal.SIGKILL)  # now whoever answers is a successor
    await seen(lambda: f"process {second} has ended (signal 9)" in said(log))
    async with connection(server.address) as channel:
        assert await create(channel, "after")
    assert server.terminate() == 0


async def test_sigterm_drains_them_all(server: ServerProcess, log: Path) -> None:
    await seen(lambda: "share the port" in said(log))
    pids = children(log)
    assert server.terminate() == 0
    assert not any(map(is_alive, pids))
    assert said(log).count("jobwire: stopped") == len(pids)


async def test_they_do_not_outlive_a_parent_that_is_killed(server: ServerProcess, log: Path) -> None:
    await seen(lambda: "share the port" in said(log))
    pids = children(log)
    server.kill()
    await seen(lambda: not any(map(is_alive, pids)))


def test_a_port_that_others_share_already_is_taken(server: ServerProcess) -> None:
    ran = CliRunner().invoke(
        main, ["serve", "--store", "redis://127.0.0.1:1", "--listen", server.address, "--processes", "2"]
    )
    assert (ran.exit_code, "is in use by another process" in ran.output) == (1, True)


def test_a_store_that_cannot_be_opened_ends_them_all(log: Path) -> None:
    with (
        pytest.raises(AssertionError, match="did not start"),
        serving("redis://127.0.0.1:1", log, "127.0.0.1:0", "--processes", "2"),
    ):
        pass
    assert "cannot open redis://127.0.0.1:1" in said(log)


def test_a_sqlite_file_belongs_to_one(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["serve", "--store", f"sqlite:///{tmp_path}/a.db", "--processes", "2"])
    assert (ran.exit_code, "belongs to one process" in ran.output) == (2, True)
