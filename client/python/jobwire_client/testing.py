"""A real server for the tests of programs that use jobwire. Needs the package `jobwire[server]`.

>>> with serving() as server, Client(server.address) as client:
...     state_name(client.create("report").state)
'QUEUED'

With pytest there is a fixture of it, one server for the whole run: `pytest_plugins = ["jobwire_client.pytest_plugin"]`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

GREETING: Final = "listening on "
PATIENCE: Final = 30.0
"""Seconds in which a server ends that was asked to."""

# It ends with its standard input as well, that is with our process, whatever becomes of that. Not read by sys.stdin,
# whose lock, held by a thread, lets the interpreter crash at its end.
_PROGRAM: Final = """
import os, runpy, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
runpy.run_module("jobwire_server", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    address: str
    """For `AsyncClient`, `Client` and `Worker`."""
    pid: int


@contextmanager
def serving(store: str = "memory://") -> Iterator[Server]:
    """`jobwire serve` as a child process on a free port of this machine; gone when the block is left.

    RuntimeError, with what it said, when it does not start. Its settings are the defaults, whatever the environment.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, "serve", "--store", store, "--listen", "127.0.0.1:0", "--http", "off"],
            env={name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            greeting = process.stdout.readline()
            if not greeting.startswith(GREETING):
                process.wait(PATIENCE)
                log.seek(0)
                raise RuntimeError(f"the server did not start: {greeting}{log.read()}")
            yield Server(greeting.removeprefix(GREETING).strip(), process.pid)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
