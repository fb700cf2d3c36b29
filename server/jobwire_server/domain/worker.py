"""What a worker says of itself, what an operator wants of it, and what it is up to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jobwire_server.domain.job import MINUTE

LOST_AFTER: Final = MINUTE
"""Without a sign of life for so long a worker is LOST. Its leases run out by themselves, whatever it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What a worker says of itself."""

    id: str
    session: int = 0
    host: str = ""
    pid: int = 0
    runtime: str = ""
    version: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    queues: tuple[str, ...] = ()
    max_in_flight: int = 0
    """Of its latest stream, as `queues` is; 0 = unsaid."""


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


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker of the registry."""

    info: WorkerInfo
    register_time: int
    """Its first beat or claim."""
    last_beat: int
    held: int
    """Leases under its name."""
    directive: Directive = Directive.NONE
    last_seen: int = 0
    """When a server last said that it has a stream open; 0 = never."""
    held_job_ids: tuple[str, ...] = ()
    """By claim time and id, as many as were asked for."""

    @property
    def last_heard(self) -> int:
        return max(self.last_beat, self.last_seen)

    def state(self, now: int) -> WorkerState:
        """What it is up to at that time of the store's."""
        return worker_state(last_heard=self.last_heard, held=self.held, directive=self.directive, now=now)
