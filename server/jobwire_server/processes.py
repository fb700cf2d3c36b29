"""Several servers behind one port: a parent that starts them, starts those anew that die, and stops them.

HTTP has one port for all of them as well. The kernel spreads connections over them. They know nothing of each other;
what they share is the store, as servers on several machines do. Nothing here imports gRPC: it must not be there when a
process forks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from dataclasses import replace
from typing import Final

import click

from jobwire_server.config import Config
from jobwire_server.exits import EXIT_FAILED, EXIT_INTERRUPTED
from jobwire_server.files import read_files
from jobwire_server.rpc.ports import CannotListen, hold
from jobwire_server.telemetry.metrics import Cells, Registry

PAUSE: Final = 1.0
"""Seconds between the death of a child and its successor, so that one that cannot live does not eat a core."""

_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}

log = logging.getLogger("jobwire")


def serve_by_many(config: Config) -> int:
    """Serves by `config.processes` children until SIGTERM or Ctrl-C, and drains; a second one ends them at once.

    Answers the exit code: the first that is not 0 among theirs. Each child ends when its parent does. ConfigError.
    """
    read_files(config)  # what is wrong with them is said once, and not by each child
    with contextlib.ExitStack() as stack:
        try:
            held, listen = hold(config.listen)
            stack.enter_context(held)
            http = "off"
            if config.http_address is not None:
                held, http = hold(config.http_address, setting="--http")
                stack.enter_context(held)
        except CannotListen as error:
            click.echo(f"jobwire: {error}", err=True)
            return EXIT_FAILED
        # Waited for below, one by one: none can come in between.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        return _Family(replace(config, listen=listen, http=http)).live()


class _Family:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._cells = Cells(config.processes)
        self._children: dict[int, int] = {}
        """Process → its number, which its successor takes over."""
        self._life, self._parent_lives = os.pipe()  # the second end is open in the parent alone
        self._is_stopping = False
        self._code = 0

    def live(self) -> int:
        greetings = [self._bear(number) for number in range(self._config.processes)]
        if all(greetings):
            click.echo(greetings[0])
            log.info("%d processes share the port: %s", len(self._children), " ".join(map(str, sorted(self._children))))
        else:
            self._fail()
        while self._children:
            number = signal.sigwait(_SIGNALS)
            if number == signal.SIGCHLD:
                self._bury()
            else:
                self._is_stopping = True
                self._tell(number)
        return self._code

    def _bear(self, number: int) -> str:
        """Starts a child, and answers its greeting once it serves; empty when it ended before."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.close(self._parent_lives)
            # A group of its own: Ctrl-C at a terminal comes to the parent, which passes it on.
            os.setpgid(0, 0)
            os._exit(self._serve(number, writing))
        os.close(writing)
        self._children[pid] = number
        with os.fdopen(reading, encoding="utf-8") as told:
            return told.read()

    def _serve(self, number: int, writing: int) -> int:
        """In the child."""
        from jobwire_server.serving import serve_alone

        def announce(greeting: str) -> None:
            with os.fdopen(writing, "w", encoding="utf-8") as told:
                told.write(greeting)

        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            metrics = Registry(self._cells, number)
            return serve_alone(self._config, announce=announce, parent=self._life, metrics=metrics)
        except BaseException:
            log.exception("a process has failed")
            return EXIT_FAILED
        finally:
            logging.shutdown()

    def _bury(self) -> None:
        """Children have ended. While nobody asked for it, those that had served are followed by others."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._is_stopping:
                self._code = self._code or (code if code >= 0 else EXIT_INTERRUPTED)
                continue
            log.error("process %d has ended (%s)", pid, f"exit code {code}" if code >= 0 else f"signal {-code}")
            time.sleep(PAUSE)  # thread: a parent that has no event loop
            if not self._bear(number):
                self._fail()

    def _fail(self) -> None:
        """A child could not begin to serve, and has said why. The others must not go on as if all were well."""
        self._is_stopping, self._code = True, EXIT_FAILED
        self._tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        for pid in self._children:
            os.kill(pid, number)
