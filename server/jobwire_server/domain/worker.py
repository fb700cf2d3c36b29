"""What an operator wants of a worker, and what it is up to."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from jobwire_server.domain.job import MINUTE

LOST_AFTER: Final = MINUTE
"""Without a sign of life for so long a worker is LOST. Its leases run out by themselves, whatever it is called."""


class Directive(StrEnum):
    """What an operator wants of a worker; only an operator moves it on."""

    NONE = "none"
    """Carry on."""
    QUIET = "quiet"
    """Claim nothing more, finish what is held, keep running."""
    TERMINATE = "terminate"
    """Claim nothing more, finish or release what is held, end."""


class WorkerState(StrEnum):
    """What a worker is up to. Derived whenever somebody asks, never stored: time alone would make it wrong."""

    IDLE = "idle"
    """Holds nothing."""
    BUSY = "busy"
    """Holds at least one lease."""
    QUIET = "quiet"
    """Has been told to claim no more; it may still hold leases."""
    LOST = "lost"
    """Not heard of for a minute; its next sign of life ends that."""


def worker_state(*, last_heard: int, held: int, directive: Directive, now: int) -> WorkerState:
    """The first that fits, in the order LOST, QUIET, BUSY, IDLE."""
    if now - last_heard >= LOST_AFTER:
        return WorkerState.LOST
    if directive is not Directive.NONE:
        return WorkerState.QUIET
    return WorkerState.BUSY if held else WorkerState.IDLE
