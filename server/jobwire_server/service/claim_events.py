"""What a claim stream is asked for, and what it tells its worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import Job
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import WorkerNotice


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSpec:
    """What a worker asks of its stream, defaults filled in."""

    worker: WorkerInfo
    queues: tuple[str, ...]
    max_in_flight: int
    lease_duration: int
    delivery_timeout: int
    max_jobs: int = 0
    """The stream ends after that many; 0 = never."""
    wait_timeout: int | None = None
    """The stream ends when no job has come for that long; None = never."""


class Assignment(NamedTuple):
    """A job for the stream's worker, with the token that only it is given."""

    job: Job
    token: bytes
    digest: bytes
    """Of the token: what the store knows it by."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """Jobs to run. `now` is the store's time of the claim."""

    now: int
    assignments: list[Assignment]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop working on a job; its settlement decides, or the end of the grace does."""

    notice: WorkerNotice


@dataclass(frozen=True, slots=True)
class Lost:
    """A lease has gone: stop, and report nothing."""

    notice: WorkerNotice


@dataclass(frozen=True, slots=True)
class Draining:
    """No more jobs come on this stream: the server is about to stop, and its worker may reconnect after that many
    microseconds; or, None, an operator has drained the worker, and the stream stays open."""

    reconnect_after: int | None


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Nothing to do, all is well. `now` is this server's clock."""

    now: int
    held: int
    credit: int


Event = Assigned | Cancel | Lost | Draining | KeepAlive


def superseded(worker_id: str) -> JobwireError:
    return JobwireError(
        Reason.SUPERSEDED,
        f"worker id in use: a newer stream of worker {worker_id!r} has opened",
        metadata={"worker_id": worker_id},
    )
