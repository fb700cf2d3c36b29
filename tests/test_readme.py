"""The README's commands work as they are written, and what it and docs/ point at is there."""

from __future__ import annotations

import json
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
HTTP = "127.0.0.1:8272"


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


def test_each_line_works_as_written_in_order_and_ends_by_itself(
    repository: Path, server: ServerProcess, tmp_path: Path
) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if shutil.which("grpcurl", path=path) is None:
        pytest.skip("grpcurl: no build of it here; put one on PATH")
    lines = commands((repository / "README.md").read_text())
    for program, at_least in (("grpcurl ", 8), ("jobwire ", 5)):
        assert sum(line.startswith(program) for line in lines) >= at_least
    for line in lines:
        assert line.startswith(("grpcurl ", "jobwire ")), line
        ran = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace(ADDRESS, server.address)],
            cwd=tmp_path,
            env={"PATH": path, "JOBWIRE_ADDRESS": server.address},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        assert ran.stdout.strip(), line


def test_each_curl_line_works_as_written_in_order(repository: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl: there is none on PATH")
    lines = commands((repository / "docs" / "http.md").read_text())
    lines += re.findall(r"`(curl [^`]*)`", (repository / "README.md").read_text())
    assert len(lines) >= 6
    with serving("memory://", tmp_path / "server.log", "127.0.0.1:0", "--http", "127.0.0.1:0") as server:
        for line in lines:
            assert line.startswith("curl "), line
            command = line.replace("curl ", "curl --silent --show-error --fail-with-body ").replace(HTTP, server.http)
            ran = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=False)
            assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
            assert HTTP in line, line
            assert ran.stdout.startswith("# HELP ") if line.endswith("/metrics") else json.loads(ran.stdout), line


def test_the_readme_shows_the_worker_that_the_examples_hold(repository: Path) -> None:
    """Twelve lines to copy: those of the README are those that run in examples/python/worker.py."""
    [shown] = re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    compile(shown, "README.md", "exec")
    example = (repository / "examples/python/worker.py").read_text()
    handler = shown[shown.index("@worker.handler") : shown.index("worker.run_forever")].strip()
    assert handler in example


def test_what_the_pages_point_at_is_there(repository: Path) -> None:
    pages = [repository / "README.md", *(repository / "docs").glob("*.md")]
    pointed_at = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        pointed_at += [page.parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]
        pointed_at += [repository / path for path in re.findall(r"`((?:tests|docs|examples|protos)/[\w./-]*)`", text)]
    assert len(pointed_at) >= len(pages)
    assert [str(path) for path in pointed_at if not path.exists()] == []
