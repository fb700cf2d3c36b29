"""How many streams this server holds open of one principal, of all kinds together."""

from __future__ import annotations

from collections import Counter
from typing import Final

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.limits import Limits
from jobwire_server.telemetry.logs import principal_name
from jobwire_server.telemetry.metrics import Registry

RECONNECT_AFTER: Final = 1_000_000
"""What whoever finds no room, or is drained, is told to wait, in microseconds, before it looks for another server."""


class Streams:
    """Each stream enters before it opens, and leaves when it has ended."""

    def __init__(self, limits: Limits, metrics: Registry | None = None) -> None:
        self._limit = limits.streams_per_principal
        self._by_principal: Counter[str] = Counter()
        about = "Streams that are open, and calls that wait."
        self._told = (metrics or Registry()).gauge("jobwire_streams", about)

    @property
    def count(self) -> int:
        """Of all principals."""
        return self._by_principal.total()

    def enter(self) -> str:
        """Answers whose stream it is: `leave` has to know."""
        principal = principal_name.get()
        if self._by_principal[principal] >= self._limit:
            raise JobwireError(
                Reason.TOO_MANY_STREAMS,
                f"this server serves at most {self._limit} streams{f' of {principal}' if principal else ''}",
                retry_after=RECONNECT_AFTER,
                metadata={"limit": str(self._limit)},
            )
        self._by_principal[principal] += 1
        self._told.add()
        return principal

    def leave(self, principal: str) -> None:
        self._by_principal[principal] -= 1
        if not self._by_principal[principal]:
            del self._by_principal[principal]
        self._told.add(-1)


def draining() -> JobwireError:
    return JobwireError(Reason.SERVER_DRAINING, "this server is shutting down", retry_after=RECONNECT_AFTER)
