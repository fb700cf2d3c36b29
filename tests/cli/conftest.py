"""A server for a whole module, and the `jobwire` command as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.server_process import serving

from jobwire_client.cli import main

PATIENCE = 60
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """Runs `jobwire` in a folder, with an environment that holds no other setting of ours."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
        self.environment |= {"JOBWIRE_ADDRESS": address}

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        """In this process: a hundred interpreters more would take a minute."""
        ours: dict[str, str | None] = {name: None for name in os.environ if name.startswith("JOBWIRE_")}
        with contextlib.chdir(self.folder):
            ended = CliRunner().invoke(
                main, arguments, prog_name="jobwire", input=stdin, env=ours | self.environment | environment
            )
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Ran(ended.exit_code, ended.stdout, ended.stderr)

    def process(self, *arguments: str) -> Ran:
        """As a user runs it."""
        ended = subprocess.run(
            self.words(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    @staticmethod
    def words(*arguments: str) -> list[str]:
        return [sys.executable, "-c", "from jobwire_client.cli import main; main(prog_name='jobwire')", *arguments]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the module's server is."""
    with serving("memory://", tmp_path_factory.mktemp("server") / "server.log") as server:
        yield server.address


@pytest.fixture
def jobwire(tmp_path: Path, address: str) -> Shell:
    return Shell(tmp_path, address)
