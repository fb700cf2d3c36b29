"""A job run as a process of its own: how it is started, stopped, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from jobwire_client import JobContext, PermanentError, Release
from jobwire_client.cli.values import as_text

RELEASE: Final = 75
"""EX_TEMPFAIL of sysexits.h."""
MAX_RESULT: Final = 256 * 1024
"""Bytes, the server's default. More is not kept in memory either."""
TAIL: Final = 4096
"""Bytes of stderr that become the error's message: as much as the contract takes."""
PIECE: Final = 64 * 1024

log = logging.getLogger("jobwire.work")


class CommandFailed(Exception):
    """The command ended with this exit code; its message is the end of its stderr."""


class Command:
    """The handler: one process per job."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], kill_after: float, release_delay: timedelta
    ) -> None:
        """`kill_after`: seconds from SIGTERM to SIGKILL."""
        self._words = words
        self._environment = environment
        self._kill_after = kill_after
        self._release_delay = release_delay

    async def __call__(self, context: JobContext) -> str | bytes | None:
        """The result. Returns, or raises, when the process has ended."""
        # A group of its own: Ctrl-C in a terminal is ours alone, and what it started in turn can be stopped with it.
        process = await asyncio.create_subprocess_exec(
            *self._words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environment, **_told(context)},
            start_new_session=True,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_write(process, context.payload))
                reading = tasks.create_task(_read(process))
                tailing = tasks.create_task(_tail(process))
                tasks.create_task(process.wait())
        finally:
            await self._end(process)
        log.info("job %s: exit code %s", context.job.id, process.returncode)
        return self._outcome(process.returncode, reading.result(), tailing.result())

    def _outcome(self, code: int | None, output: bytes | None, tail: str) -> str | bytes | None:
        if code == RELEASE:
            raise Release(self._release_delay)
        if code != 0:
            how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise CommandFailed(f"{how}: {tail}" if tail else how)
        if output is None:
            raise PermanentError(f"it printed more than {MAX_RESULT // 1024} KiB", code="RESULT_TOO_LARGE")
        return as_text(output) if output else None

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Nothing of it is left running when this returns."""
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            try:
                async with asyncio.timeout(self._kill_after):
                    await process.wait()
            except TimeoutError:
                log.warning("process %d does not stop, killing it", process.pid)
        _signal(process, signal.SIGKILL)
        await process.wait()


class WithoutTraceback(logging.Filter):
    """A command that failed is no bug of this program: its end is told in a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], CommandFailed | PermanentError):
            record.exc_info = None
        return True


def _told(context: JobContext) -> dict[str, str]:
    job = context.job
    return {
        "JOBWIRE_JOB_ID": job.id,
        "JOBWIRE_JOB_ATTEMPT": str(job.attempt),
        "JOBWIRE_JOB_FENCE": str(context.fence),
        "JOBWIRE_JOB_TYPE": job.type,
        "JOBWIRE_JOB_QUEUE": job.queue,
    }


async def _write(process: asyncio.subprocess.Process, payload: bytes) -> None:
    """A command need not read its input to the end."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(payload)
        await process.stdin.drain()
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()


async def _read(process: asyncio.subprocess.Process) -> bytes | None:
    """All of stdout; None when it is too much, and then read to the end all the same: a full pipe would stop it."""
    assert process.stdout is not None
    kept: bytearray | None = bytearray()
    while piece := await process.stdout.read(PIECE):
        if kept is not None:
            kept += piece
            if len(kept) > MAX_RESULT:
                kept = None
    return None if kept is None else bytes(kept)


async def _tail(process: asyncio.subprocess.Process) -> str:
    """The end of stderr, all of which goes to ours as well."""
    assert process.stderr is not None
    tail = b""
    while piece := await process.stderr.read(PIECE):
        tail = (tail + piece)[-TAIL:]
        sys.stderr.buffer.write(piece)
        sys.stderr.flush()
    return tail.decode("utf-8", "ignore").strip()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the whole group; one that is gone needs none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
