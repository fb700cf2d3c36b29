"""Two servers behind HAProxy, with the configuration that we ship."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import pytest
from tests.conftest import missing
from tests.server_process import ServerProcess, serving
from tests.store import invariants
from tests.valkey_process import Keyspace

from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED
from jobwire_client import AsyncClient, JobContext, Worker

JOBS: Final = 400
SHARE: Final = 100
"""Jobs done between two things that happen."""

HAPROXY: Final = shutil.which("haproxy")

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(HAPROXY is None, reason="no HAProxy on PATH; on Debian, as root, apt-get install haproxy"),
    pytest.mark.skipif(bool(missing("valkey")), reason=missing("valkey")),
]


@pytest.fixture
def engine() -> str:
    return "valkey"


@pytest.fixture
def servers(keyspace: Keyspace, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    with ExitStack() as stack:
        options = ("127.0.0.1:0", "--http", "127.0.0.1:0")
        yield [
            stack.enter_context(serving(keyspace.url, tmp_path / f"server-{number}.log", *options))
            for number in range(2)
        ]
    assert not invariants.broken_at(keyspace.url)


@pytest.fixture
def balancer(repository: Path, servers: list[ServerProcess], tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Its addresses, of gRPC and of HTTP."""
    shipped = (repository / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    with socket.create_server(("127.0.0.1", 0)) as grpc, socket.create_server(("127.0.0.1", 0)) as http:
        configured = bound(before(shipped, servers), {7272: grpc, 8272: http})
        with balancing(configured, tmp_path, [grpc.fileno(), http.fileno()]):
            yield address(grpc), address(http)


def before(configuration: str, servers: list[ServerProcess]) -> str:
    """A line for each server, instead of one for all that have a name in Docker's network."""
    for port, of in ((7272, "address"), (8272, "http")):
        lines = "\n".join(f"    server s{n} {getattr(each, of)}" for n, each in enumerate(servers))
        template = f"    server-template jobwire 8 jobwire:{port} resolvers docker init-addr none"
        assert configuration.count(template) == 1
        configuration = configuration.replace(template, lines)
    for n, each in enumerate(servers):
        checked = f"port {each.http.rpartition(':')[2]}"
        configuration = re.sub(rf"(?m)^    server s{n} .*$", rf"\g<0> {checked}", configuration)
    return configuration


def bound(configuration: str, sockets: dict[int, socket.socket]) -> str:
    """On sockets that listen already: so no port is taken by somebody who is quicker."""
    for port, each in sockets.items():
        configuration, found = re.subn(rf"(?m)^    bind :{port}\b", f"    bind fd@{each.fileno()}", configuration)
        assert found == 1
    return configuration


@contextmanager
def balancing(configuration: str, folder: Path, sockets: list[int]) -> Iterator[None]:
    file = folder / "haproxy.cfg"
    file.write_text(configuration)
    assert HAPROXY is not None
    said = folder / "haproxy.log"
    with said.open("w") as log:
        process = subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stdout=log, stderr=log, pass_fds=sockets)
    try:
        yield
    finally:
        print(said.read_text())  # noqa: T201  pytest shows it when the test fails
        process.kill()
        process.wait()


def address(of: socket.socket) -> str:
    return f"127.0.0.1:{of.getsockname()[1]}"


def status_of(url: str) -> int:
    with urlopen(url, timeout=30) as answer:
        return int(answer.status)


async def test_behind_the_balancer_the_death_and_the_drain_of_servers_lose_nothing(
    servers: list[ServerProcess], balancer: tuple[str, str]
) -> None:
    done: set[str] = set()
    more = asyncio.Condition()

    async def until(jobs: int) -> None:
        async with more:
            await more.wait_for(lambda: len(done) >= jobs)

    async def produce(client: AsyncClient) -> None:
        for number in range(JOBS):
            await client.create("work", id=f"job-{number}")
            await until(number - SHARE // 2)  # so that there is work to do until the last thing has happened

    worker = Worker(balancer[0], concurrency=8, id="worker")

    @worker.handler("work")
    async def work(job: JobContext) -> None:
        async with more:
            done.add(job.job.id)
            more.notify_all()

    async with asyncio.timeout(100), asyncio.TaskGroup() as tasks, AsyncClient(balancer[0], timeout=60) as client:
        working = tasks.create_task(worker.run())
        producing = tasks.create_task(produce(client))
        await until(SHARE)
        servers[0].kill()
        await until(2 * SHARE)
        await asyncio.to_thread(servers[0].start)
        await until(3 * SHARE)
        assert await asyncio.to_thread(servers[1].terminate) == 0
        assert await asyncio.to_thread(status_of, f"http://{balancer[1]}/readyz") == 200
        await producing
        for number in range(JOBS):
            assert (await client.wait(f"job-{number}")).state == JOB_STATE_COMPLETED
        worker.stop()
        await working


def test_haproxy_takes_the_file_as_it_stands(repository: Path) -> None:
    assert HAPROXY is not None
    file = repository / "deploy" / "haproxy" / "haproxy.cfg"
    checked = subprocess.run([HAPROXY, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[WARNING]" not in checked.stderr
