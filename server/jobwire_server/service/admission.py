"""How many streams this server holds open, of all kinds together."""

from __future__ import annotations

from typing import Final

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.limits import Limits
from jobwire_server.telemetry.metrics import Registry

RECONNECT_AFTER: Final = 1_000_000
"""What whoever finds no room, or is drained, is told to wait, in microseconds, before it looks for another server."""


class Streams:
    """Each stream enters before it opens, and leaves when it has ended."""

    def __init__(self, limits: Limits, metrics: Registry | None = None) -> None:
        self._limit = limits.streams_per_principal
        self.count = 0
        about = "Streams that are open, and calls that wait."
        self._told = (metrics or Registry()).gauge("jobwire_streams", about)

    def enter(self) -> None:
        if self.count >= self._limit:
            raise JobwireError(
                Reason.TOO_MANY_STREAMS,
                f"this server serves at most {self._limit} streams",
                retry_after=RECONNECT_AFTER,
                metadata={"limit": str(self._limit)},
            )
        self.count += 1
        self._told.add()

    def leave(self) -> None:
        self.count -= 1
        self._told.add(-1)


def draining() -> JobwireError:
    return JobwireError(Reason.SERVER_DRAINING, "this server is shutting down", retry_after=RECONNECT_AFTER)
