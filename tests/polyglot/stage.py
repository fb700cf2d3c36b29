"""Where scenarios are played: servers, and the languages' drivers in their parts."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import Any, Final

import grpc
from tests.polyglot.languages import LANGUAGES, PATH, ROOT
from tests.polyglot.scenario import Names, Scenario, Step, differences
from tests.server_process import ServerProcess

PATIENCE: Final = 30.0
"""Seconds that a driver may keep silent when it should speak."""
WORK: Final = {"concurrency": 4, "leaseSeconds": 30, "graceSeconds": 10}
"""Of a worker, unless the scenario says otherwise."""

Cast = tuple[str, str, str]
"""The languages of producer, worker and watcher."""


class Driver:
    """A program of one language's examples, which does what it is told a line and tells a line for what it sees."""

    def __init__(self, language: str, address: str, log: Path) -> None:
        self._log = log
        self._name = language
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                LANGUAGES[language].driver(address),
                cwd=ROOT,
                env=os.environ | {"PATH": PATH, "TMPDIR": str(log.parent)},  # killed, a driver leaves its files
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._unmatched: list[Any] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def tell(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"{self._name} says nothing: {self._log.read_text()}") from None
        assert line, f"{self._name} has ended: {self._log.read_text()}"
        return json.loads(line)

    def hear_event(self, expected: Any, names: Names) -> None:
        """Reads on to this event. Others are kept: jobs that run side by side speak in any order."""
        for event in self._unmatched:
            if not differences(expected, event, names):
                self._unmatched.remove(event)
                return
        while True:
            try:
                event = self.hear()
            except AssertionError as silence:
                raise AssertionError(f"waited for {expected}, heard {self._unmatched}; {silence}") from None
            if not differences(expected, event, names):
                return
            self._unmatched.append(event)

    def terminate(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        self._process.kill()
        # A shell's driver has children in process groups of their own; they are all of its session.
        subprocess.run(["pkill", "-KILL", "-s", str(self._process.pid)], check=False)
        self._process.wait()
        self._reader.join(PATIENCE)  # to the end of what they have said: a pipe is closed under nobody's hands
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Stage:
    """A server for each engine, and a driver that makes calls for each language on it, for as long as the tests run."""

    def __init__(self, folder: Path, store_url: Callable[[str], str]) -> None:
        self._folder = folder
        self._store_url = store_url
        self._servers: dict[str, ServerProcess] = {}
        self._callers: dict[tuple[str, str], Driver] = {}
        self._numbers = itertools.count(1)
        self._kept = ExitStack()

    def close(self) -> None:
        self._kept.close()

    def play(self, scenario: Scenario, cast: Cast, engine: str) -> None:
        """Raises AssertionError at the step that did not go as it is told."""
        languages = dict(zip(("producer", "worker", "watcher"), cast, strict=True))
        names = {"run": f"run{next(self._numbers)}-{os.getpid()}"}
        server = self._server(engine)
        with ExitStack() as run:
            worker: Driver | None = None
            watcher: Driver | None = None
            for step in scenario.steps:
                match step.who, step.what:
                    case "server", "restarts":
                        server.terminate()
                        server.start()
                    case "worker", "works":
                        worker = Driver(languages["worker"], server.address, self._log(languages["worker"]))
                        run.callback(worker.end)
                        worker.tell({"work": WORK | step.request(names)})
                    case "worker", "tells":
                        assert worker
                        worker.hear_event(step.request(names), names)
                    case "worker", "finishes":
                        assert worker
                        worker.tell({"finish": True})
                    case "worker", "is":
                        assert worker
                        worker.terminate()
                    case "watcher", "watches":
                        watcher = Driver(languages["watcher"], server.address, self._log(languages["watcher"]))
                        run.callback(watcher.end)
                        watcher.tell({"watch": step.request(names)})
                    case "watcher", "sees":
                        assert watcher
                        watcher.hear_event(step.request(names), names)
                    case _:
                        self._call(step, languages[step.who], engine, names)

    def _call(self, step: Step, language: str, engine: str, names: Names) -> None:
        caller = self._caller(language, engine)
        if step.refused:
            code, reason = step.refused.split()
            expected: Any = {"code": grpc.StatusCode[code].value[0], "reason": reason}
        else:
            expected = {"response": json.loads(Template(step.expected).substitute(names))}
        until = time.monotonic() + (PATIENCE if step.is_repeated else 0)
        while True:
            caller.tell({"call": step.what, "request": step.request(names)})
            found = differences(expected, caller.hear(), names)
            if not found:
                return
            assert time.monotonic() < until, f"{step.who} {step.what} in {language}:\n" + "\n".join(found)

    def _server(self, engine: str) -> ServerProcess:
        if engine not in self._servers:
            server = self._servers[engine] = ServerProcess(self._store_url(engine), self._log(f"server-{engine}"))
            self._kept.callback(server.end)
            server.start()
        return self._servers[engine]

    def _caller(self, language: str, engine: str) -> Driver:
        if (language, engine) not in self._callers:
            driver = Driver(language, self._server(engine).address, self._log(language))
            self._callers[language, engine] = driver
            self._kept.callback(driver.end)
        return self._callers[language, engine]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
