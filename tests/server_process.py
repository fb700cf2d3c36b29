"""A real server as a child process, for tests that kill it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HTTP = re.compile(r"dashboard +https?://(\S+)")


class ServerProcess:
    """`jobwire serve` on a free port of loopback, over a store that outlives it; no store = the environment's."""

    def __init__(self, store: str, log: Path, address: str = "127.0.0.1:0", *options: str) -> None:
        self._store = store
        self._log = log
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.address = address
        self.http = ""
        """Where it serves HTTP; nowhere unless its options say so."""

    def start(self) -> None:
        """Returns when it listens: the first time on a free port, then always on the same."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "jobwire_server", "serve"),
                    *(("--store", self._store) if self._store else ()),
                    *("--listen", self.address),
                    *(() if "--http" in self._options else ("--http", "off")),
                    *self._options,
                    *(("--http", self.http) if self.http else ()),  # the last one counts
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        assert first.startswith("listening on "), f"the server did not start: {first!r}\n{self._log.read_text()}"
        self.address = first.removeprefix("listening on ").strip()
        if "--http" in self._options:
            found = _HTTP.match(self._process.stdout.readline())
            self.http = found[1] if found else ""

    def rest_of_greeting(self) -> str:
        """What it says for people, once."""
        assert self._process is not None
        assert self._process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("Stop with"):
            lines.append(self._process.stdout.readline())
        return "".join(lines)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill -9; returns when it is dead."""
        self._end(signal.SIGKILL)

    def end(self) -> None:
        """Kill -9 of what may have been started, or not."""
        if self._process is not None:
            self.kill()

    def terminate(self, how: signal.Signals = signal.SIGTERM) -> int:
        """SIGTERM, as a deploy does; returns its exit code."""
        return self._end(how)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._process.pid, how)
        code = self._process.wait(timeout=30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


@contextmanager
def serving(store: str, log: Path, address: str = "127.0.0.1:0", *options: str) -> Iterator[ServerProcess]:
    """A started server; killed at the end, whatever happened."""
    server = ServerProcess(store, log, address, *options)
    try:
        server.start()
        yield server
    finally:
        server.end()
