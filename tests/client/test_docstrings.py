"""The examples in docstrings and in docs/ do what they say, against a real server."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.server_process import ServerProcess

import jobwire_client

FOLDER = Path(jobwire_client.__file__).parent
SHOWING = [f"jobwire_client.{path.stem}" for path in sorted(FOLDER.glob("*.py")) if ">>>" in path.read_text()]
PAGES = ["docs/producers.md", "docs/workers.md"]
ADDRESS = "127.0.0.1:7272"


@pytest.mark.parametrize("name", SHOWING)
def test_examples_in_docstrings(name: str, own_server: ServerProcess) -> None:
    """They may use `address`, asyncio, and all that the package offers."""
    module = importlib.import_module(name)
    names = {"address": own_server.address, "asyncio": importlib.import_module("asyncio")}
    found = doctest.DocTestFinder().find(
        module, extraglobs=names | {name: getattr(jobwire_client, name) for name in jobwire_client.__all__}
    )
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for test in found:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_there_are_examples_to_run() -> None:
    assert {f"jobwire_client.{name}" for name in ("_async", "_sync", "models", "testing", "worker")} <= set(SHOWING)


@pytest.mark.parametrize("page", PAGES)
def test_examples_in_the_docs(page: str, repository: Path, own_server: ServerProcess, tmp_path: Path) -> None:
    """The blocks of a page are one program, in order."""
    blocks = re.findall(r"^```python\n(.*?)^```", (repository / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    program = tmp_path / "page.py"
    program.write_text("\n".join(map(textwrap.dedent, blocks)).replace(ADDRESS, own_server.address))
    ran = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr


def test_the_examples_work_together(repository: Path, own_server: ServerProcess) -> None:
    examples = repository / "examples/python"
    worker = subprocess.Popen(
        [sys.executable, str(examples / "worker.py"), own_server.address], stdout=subprocess.PIPE, text=True
    )
    try:
        made = subprocess.run(
            [sys.executable, str(examples / "producer.py"), own_server.address],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "hello, world" in made.stdout, made.stderr
    finally:
        worker.terminate()
        said, _ = worker.communicate(timeout=60)
    assert "hello, world" in said
    assert worker.returncode == 0
