"""Child processes that never outlive the demo."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[3]
"""Where `examples` is a package."""
TIME_TO_END = 20.0
"""Seconds from SIGTERM to SIGKILL."""


class Children:
    """All have ended, and have been waited for, when the block is left."""

    def __init__(self, log: Path) -> None:
        """`log` takes what they say on stderr."""
        self._log = log
        self._processes: list[Process] = []

    async def start(self, module: str, *arguments: str, settings: Mapping[str, str] | None = None) -> Process:
        """`python -m module arguments…`; of the environment's own settings it is given none."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "examples.python.demo.child", module, *arguments),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                cwd=ROOT,
                env={**environment, **(settings or {})},
                start_new_session=True,  # Ctrl-C in a terminal is the demo's, which then ends them in order
            )
        self._processes.append(process)
        return process

    def kill(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(end(process) for process in self._processes))


async def end(process: Process) -> int:
    """SIGTERM, and SIGKILL for what does not heed it; the exit code."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(TIME_TO_END):
            # Read to the end: a child that still writes would wait for us.
            await asyncio.gather(process.wait(), _read(process))
    except TimeoutError:
        process.kill()
    return await process.wait()


async def _read(process: Process) -> None:
    assert process.stdout is not None
    await process.stdout.read()
