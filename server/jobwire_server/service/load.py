"""How much of what one server process can carry it is carrying."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Final, NamedTuple

from jobwire_server.telemetry.logs import fields
from jobwire_server.telemetry.metrics import Registry

WINDOW: Final = 60.0
"""Seconds that a share is of."""
HEAVY: Final = 0.7
"""The share from which people are told: that of a server which can do no more, the rest being waits for its store
(measured: docs/performance.md)."""
TOLD_EVERY: Final = 3600.0
"""Seconds between two log lines about the same."""

_STEP: Final = 5.0

log = logging.getLogger("jobwire.load")


class Look(NamedTuple):
    """One reading, in seconds."""

    now: float
    """Of a clock that only goes on."""
    worked: float
    """How long the thread of the event loop has been at work since it began."""


def look() -> Look:
    """To be called in the event loop."""
    return Look(time.monotonic(), time.thread_time())


class Load:
    """Looks until cancelled at how much the event loop's thread is at work: it parses, decides and, on SQLite, runs
    every statement, so that it is what a server process runs out of first."""

    def __init__(self, metrics: Registry, *, advice: str) -> None:
        """`advice` follows, in the log, what has been measured."""
        self._advice = advice
        self._looks: deque[Look] = deque(maxlen=round(WINDOW / _STEP) + 1)
        self._told = -TOLD_EVERY
        self._seconds = metrics.counter(
            "jobwire_busy_seconds_total", "How long the event loops of the server's processes were at work."
        )

    async def run(self) -> None:
        while True:
            self.note(look())
            await asyncio.sleep(_STEP)

    def share(self, latest: Look) -> float:
        """How much of the latest minute, or of what there was of it, this process was at work: 0 … 1."""
        if not self._looks or latest.now <= self._looks[0].now:
            return 0.0
        first = self._looks[0]
        return min((latest.worked - first.worked) / (latest.now - first.now), 1.0)

    def note(self, latest: Look) -> None:
        """Keeps a look, and says in the log what it means."""
        if self._looks:
            self._seconds.add(latest.worked - self._looks[-1].worked)
        self._looks.append(latest)
        share = self.share(latest)
        is_whole = len(self._looks) == self._looks.maxlen
        if is_whole and share >= HEAVY and latest.now - self._told >= TOLD_EVERY:
            self._told = latest.now
            log.warning(
                "this server was at work for %.0f %% of the last minute, and can do little more: %s",
                share * 100,
                self._advice,
                extra=fields(load=round(share, 2)),
            )
