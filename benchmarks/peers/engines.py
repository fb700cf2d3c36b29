"""What the contestants keep their jobs in: fresh for every run, in a folder of its own, and gone afterwards."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import servers
from benchmarks.servers import STARTED_WITHIN, free_port, running, wait_for


@dataclass(frozen=True, slots=True)
class Program:
    """Something that has to be on this machine already."""

    name: str
    remedy: str = ""
    """How it comes there; empty where there is no short answer."""

    version_flag: str = "--version"
    also_in: str = ""
    """A pattern of folders off PATH in which Debian keeps it."""

    @property
    def path(self) -> str | None:
        folders = sorted((str(path) for path in Path("/").glob(self.also_in)), reverse=True) if self.also_in else []
        return shutil.which(self.name, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))

    @property
    def absence(self) -> str:
        """Why it cannot be used; empty when it can."""
        if self.path is not None:
            return ""
        return f"no {self.name} on PATH" + (f": {self.remedy}" if self.remedy else "")

    @property
    def version(self) -> str:
        if self.path is None:
            return ""
        told = subprocess.run([self.path, self.version_flag], capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
        return found[0] if found else ""


BEANSTALKD: Final = Program("beanstalkd", "apt-get install beanstalkd", version_flag="-v")
FAKTORY: Final = Program("faktory", version_flag="-v")
INITDB: Final = Program("initdb", "apt-get install postgresql", also_in="usr/lib/postgresql/*/bin")
POSTGRES: Final = Program("postgres", "apt-get install postgresql", also_in="usr/lib/postgresql/*/bin")
PG_ISREADY: Final = Program("pg_isready", "apt-get install postgresql", also_in="usr/lib/postgresql/*/bin")
REDIS: Final = Program("redis-server", "apt-get install redis-server")


@contextmanager
def jobwire(store: str, fsync: str = "everysec") -> Iterator[str]:
    with servers.server(store, fsync) as server:
        yield server.address


@contextmanager
def redis() -> Iterator[str]:
    """appendonly, fsync every second: its URL, without a database."""
    with _folder() as folder, servers.engine("redis", folder) as (url, _):
        yield url


@contextmanager
def beanstalkd(fsync_every: int) -> Iterator[str]:
    """With its log; `fsync_every` in milliseconds, 0 before every answer."""
    port = free_port()
    with _folder() as folder:
        command = [_path(BEANSTALKD), "-l", "127.0.0.1", "-p", str(port), "-b", str(folder), "-f", str(fsync_every)]
        with running(command, folder / "engine.log") as process:
            wait_for(port, process)
            yield f"127.0.0.1:{port}"


@contextmanager
def faktory() -> Iterator[str]:
    """As it comes, with the Redis that it starts for itself."""
    port, web = free_port(), free_port()
    with _folder() as folder:
        command = [_path(FAKTORY), "-b", f"127.0.0.1:{port}", "-w", f"127.0.0.1:{web}", "-l", "error"]
        command += ["-d", str(folder), "-c", str(folder)]
        with running(command, folder / "engine.log") as process:
            wait_for(port, process)
            yield f"127.0.0.1:{port}"


@contextmanager
def postgres() -> Iterator[str]:
    """A cluster of its own with Debian's settings, which fsync before a commit is answered: the URL of its database."""
    port = free_port()
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    with _folder() as folder:
        data = folder / "data"
        data.mkdir()
        if user is not None:
            folder.chmod(0o711)
            shutil.chown(data, user)
        initdb = [_path(INITDB), "--pgdata", str(data), "--auth", "trust", "--username", "postgres", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, user=user, cwd=folder)
        command = [_path(POSTGRES), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
        with running(command, folder / "engine.log", user) as process:
            wait_for(port, process)
            _wait_until_ready(port)
            yield f"postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable"


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while subprocess.run([_path(PG_ISREADY), "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
        if time.monotonic() > deadline:
            raise SystemExit("PostgreSQL listens and takes no connection")
        time.sleep(0.05)  # it tells nobody when it is ready


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="jobwire-bench-") as name:
        yield Path(name)


def _path(program: Program) -> str:
    if program.path is None:
        raise SystemExit(program.absence)
    return program.path
