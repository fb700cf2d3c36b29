"""The commands of docs/operations.md work as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Shell

from jobwire_client import AsyncClient, JobContext, PermanentError, Worker


async def a_dead_letter(address: str) -> None:
    """`order-4711` in the queue `mail` is FAILED, by the worker `mailer-17`."""
    worker = Worker(address, queues=["mail"], id="mailer-17")

    @worker.default_handler
    async def fail(context: JobContext) -> None:
        raise PermanentError("no such address")

    working = asyncio.create_task(worker.run())
    async with AsyncClient(address) as client:
        await client.create("email.send", queue="mail", id="order-4711")
        await client.wait("order-4711", timeout=30)
    worker.stop()
    await working


def test_each_line_works_as_written(jobwire: Shell, address: str, repository: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if shutil.which("grpcurl", path=path) is None:
        pytest.skip("grpcurl: no build of it here; put one on PATH")
    asyncio.run(a_dead_letter(address))
    page = (repository / "docs" / "operations.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 20
    for line in lines:
        assert line.startswith(("jobwire ", "grpcurl ")), line
        ran = subprocess.run(
            ["bash", "-c", line.replace("127.0.0.1:7272", address)],
            cwd=jobwire.folder,
            env={**jobwire.environment, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        assert (ran.stdout + ran.stderr).strip(), line


def test_every_command_it_names_exists(jobwire: Shell, repository: Path) -> None:
    page = (repository / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`jobwire (\w+)", page))
    assert {"why", "recover", "fsck", "health"} <= named
    listed = jobwire("--help").out
    assert [name for name in named if not re.search(rf"^  {name}\b", listed, re.MULTILINE)] == []
