"""What a handler is given, and what it may raise."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import Assignment
from jobwire_client._convert import Body, payload_bytes


class PermanentError(Exception):
    """No retry can help: the job fails for good, whatever retries it has left."""

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.code = code
        """For programs, as `Job.error.code`; the name of the exception's class when empty."""


class Retry(Exception):
    """The attempt failed, and this is when to try again, in place of the policy's backoff. Spends a retry."""

    def __init__(self, message: str = "", *, after: float | timedelta, code: str = "") -> None:
        super().__init__(message)
        self.after = after
        self.code = code


class Release(Exception):
    """The job goes back unfinished, to be claimed again after `delay`. Spends nothing, at most 20 times in a row."""

    def __init__(self, delay: float | timedelta = 0) -> None:
        super().__init__()
        self.delay = delay


class Stopped(Exception):
    """Raised by `JobContext.check`: what a handler does from here on would be in vain."""


_WAITING = threading.Lock()
"""Held where a thread begins to wait and where somebody stops a run, so that neither overlooks the other."""


class JobContext:
    """One run of one job. Its properties and methods may be used from any thread, `report` from the event loop only."""

    def __init__(self, assignment: Assignment, report: Callable[[float | None, str], Awaitable[None]]) -> None:
        self._assignment = assignment
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._is_stopped = False
        self._waited_for: threading.Event | None = None
        """Made by the first thread that waits: it costs as much as all the rest of a context."""
        self._cancel_reason: str | None = None
        self._latest: tuple[float | None, str] | None = None
        """What a thread has reported last, until it is sent."""

    @property
    def job(self) -> Job:
        """As it was claimed."""
        return self._assignment.job

    @property
    def fence(self) -> int:
        """Rises with each claim of this job. Hand it to what the handler writes to, so that a late run is refused."""
        return self._assignment.fence

    @property
    def payload(self) -> bytes:
        """The body, text as UTF-8."""
        return payload_bytes(self.job.payload)

    @property
    def text(self) -> str:
        """The body as text. UnicodeDecodeError when it is none."""
        return self.payload.decode()

    def json(self) -> Any:
        """The body as JSON; None for an empty one."""
        return json.loads(self.payload) if self.payload else None

    @property
    def cancelled(self) -> bool:
        """A cancel was requested. An async handler is cancelled as well; a plain one has to look here."""
        return self._cancel_reason is not None

    @property
    def cancel_reason(self) -> str:
        """As given to the cancel; may be empty."""
        return self._cancel_reason or ""

    @property
    def stopped(self) -> bool:
        """The handler should end: cancelled, its lease was lost, or the worker shuts down."""
        return self._is_stopped

    def wait_stopped(self, timeout: float | None = None) -> bool:
        """Blocks a plain handler's thread until it should end (True) or `timeout` seconds have passed."""
        with _WAITING:
            if self._waited_for is None:
                self._waited_for = threading.Event()
                if self._is_stopped:
                    self._waited_for.set()
        return self._waited_for.wait(timeout)

    def check(self) -> None:
        """The way out for a plain handler: raises Stopped when it should end. What it returns instead counts as a
        completion, also after a cancel."""
        if self._is_stopped:
            raise Stopped

    async def report(self, fraction: float | None = None, message: str = "") -> None:
        """Tells how far the handler is. Does its best: a report that cannot be delivered is dropped."""
        await self._report(fraction, message)

    def report_from_thread(self, fraction: float | None = None, message: str = "") -> None:
        """The same for a plain handler, without waiting for it to arrive. Of those that wait the latest is sent."""
        is_sending, self._latest = self._latest is not None, (fraction, message)
        if not is_sending:
            asyncio.run_coroutine_threadsafe(self._report_latest(), self._loop)

    async def _report_latest(self) -> None:
        while (latest := self._latest) is not None:
            await self._report(*latest)
            if self._latest is latest:
                self._latest = None

    def stop(self, *, cancel_reason: str | None = None) -> None:
        """For the worker: sets the flags."""
        if cancel_reason is not None:
            self._cancel_reason = cancel_reason
        with _WAITING:
            self._is_stopped = True
            if self._waited_for is not None:
                self._waited_for.set()


Handler: TypeAlias = "Callable[[JobContext], Awaitable[Body] | Body]"
"""An async function, or a plain one, which runs in a thread. What it returns is the job's result."""
