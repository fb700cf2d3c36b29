"""The README's commands work as they are written."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server_process import ServerProcess, serving

ADDRESS = "127.0.0.1:7272"


def commands(readme: str) -> list[str]:
    """Each command of the README's `sh` blocks; a line that ends with | goes on in the next."""
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    return [command for block in blocks for command in re.sub(r"\|\n", "| ", block).strip().splitlines()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A fresh server where `make run` serves; on a free port when something is there already."""
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", 7272)) == 0
    address = "127.0.0.1:0" if taken else ADDRESS
    with serving(f"sqlite:///{tmp_path}/jobs.db", tmp_path / "server.log", address) as process:
        yield process


def test_each_grpcurl_line_works_as_written_in_order_and_ends_by_itself(
    repository: Path, server: ServerProcess, tmp_path: Path
) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if shutil.which("grpcurl", path=path) is None:
        pytest.skip("grpcurl: no build of it here; put one on PATH")
    lines = commands((repository / "README.md").read_text())
    assert len(lines) >= 8
    for line in lines:
        assert line.startswith("grpcurl "), line
        ran = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace(ADDRESS, server.address)],
            cwd=tmp_path,
            env={"PATH": path},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        assert ran.stdout.strip(), line


def test_the_readme_shows_the_worker_that_the_examples_hold(repository: Path) -> None:
    """Twelve lines to copy: those of the README are those that run in examples/python/worker.py."""
    [shown] = re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    compile(shown, "README.md", "exec")
    example = (repository / "examples/python/worker.py").read_text()
    handler = shown[shown.index("@worker.handler") : shown.index("worker.run_forever")].strip()
    assert handler in example
