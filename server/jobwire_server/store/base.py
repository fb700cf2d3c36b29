"""What a store promises: the verbs, one sentence each, and the values they take and give.

Every verb takes and gives domain values, lists where there can be many, and is atomic per call: other callers see all
of it or nothing. Time is the store's own clock, in microseconds. A verb that was refused by the store raises
`StoreUnavailable` (the outcome is unknown: the same call may be repeated) or `StoreFull` (nothing happened).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import Job, NewJob
from jobwire_server.domain.move import Move


class StoreUnavailable(Exception):
    """The store did not answer, or cannot write now. What was asked may or may not have happened."""


class CannotOpen(Exception):
    """What is there cannot be opened as a store; the message says why and what would do."""


class StoreFull(Exception):
    """The store has no room. Nothing happened; completing, renewing and purging still work where they can."""


class CreateOutcome(StrEnum):
    """What became of one create; only CREATED stored a job."""

    CREATED = "created"
    EXISTED = "existed"
    """The same request had come before; its job is answered as it is now, or None when it has gone since."""
    ID_TAKEN = "id_taken"
    """Another job has this id."""
    REQUEST_REUSED = "request_reused"
    """The request id was used for other content."""


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to one create."""

    outcome: CreateOutcome
    job_id: str
    """The stored job's id: with a repeated request id it can differ from the id in this request."""
    job: Job | None
    queue_position: int
    """An estimate: jobs QUEUED in its queue, itself included; 0 when it is not QUEUED."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Jobs as they stood at one moment of the store's clock: what a decision is made from."""

    now: int
    jobs: list[Job | None]
    """In the order asked for; None where there is no such job."""


class ClaimOutcome(StrEnum):
    """Whether a worker may claim; only OK comes with jobs."""

    OK = "ok"
    SUPERSEDED = "superseded"
    """A newer stream of this worker id has opened."""
    SILENT = "silent"
    """Its last delivery was never acknowledged: it gets nothing until it is heard: beats, renews or settles."""
    NOT_ACKNOWLEDGING = "not_acknowledging"
    """Its last 20 deliveries all came back: it gets nothing until a minute after the last one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """One stream's wish for jobs of one queue."""

    worker_id: str
    session: int
    max_in_flight: int
    """The worker holds at most this many leases, over all streams and servers."""
    tokens: Sequence[bytes]
    """Digests of the tokens to give, one for each job wanted at most."""
    lease_duration: int
    delivery_timeout: int
    """0 = the claim counts as acknowledged and grants `lease_duration`."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to one claim request."""

    outcome: ClaimOutcome
    jobs: list[Job]
    """Lowest rank first; each carries the digest of the token it was given."""
    held: int
    """Leases under the worker's name after this claim."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The answer to a claim: one `Claimed` for each request, in order."""

    now: int
    claimed: list[Claimed]
    remaining: int
    """Jobs of this queue that could still be claimed now, unseen expired ones included; 0 while it is paused."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The answer to one Move."""

    outcome: Outcome
    job: Job | None
    """The job after the Move when OK; as it is when LOST or STALE; None when GONE, or when OK removed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A holder's sign of life for one lease, perhaps with progress."""

    job_id: str
    token: bytes
    fraction: float | None = None
    message: str = ""

    @property
    def has_progress(self) -> bool:
        return self.fraction is not None or bool(self.message)


@dataclass(frozen=True, slots=True)
class Renewed:
    """The answer to one renewal: OK, GONE or LOST."""

    outcome: Outcome
    remaining: int = 0
    """Microseconds the lease has left; 0 unless OK."""
    cancel_requested: bool = False
    cancel_reason: str = ""
    job: Job | None = None
    """The job after it, unless GONE."""


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


@dataclass(frozen=True, slots=True)
class WorkerNotice:
    """A word for the worker that held a job: stop (a cancel is requested), or the lease has gone."""

    worker_id: str
    job_id: str
    fence: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Hints:
    """A doorbell, never the truth: what one change of the store may mean to those who wait."""

    queued: dict[str, int] = field(default_factory=dict)
    """Queue → about how many jobs became claimable."""
    freed: dict[str, int] = field(default_factory=dict)
    """Worker → about how many leases it no longer holds."""
    heard: tuple[str, ...] = ()
    """Workers that were SILENT and have been heard since."""
    cancels: tuple[WorkerNotice, ...] = ()
    lost: tuple[WorkerNotice, ...] = ()
    expired_seen: bool = False
    """A claim looked past a job whose `expire_time` has passed: sweep soon."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store is, for people."""

    kind: str
    """`sqlite`, `memory`, `redis`."""
    engine: str
    """The engine with its version, such as `SQLite 3.54.0`."""
    url: str
    """Where it is, with any password masked."""
    durability: str
    """What an OK means, as verified at start: `fsynced`, `none`, …"""
    now: int
    """The store's clock."""
    recovered_at: int
    """When it last came back from an outage (0 = never)."""


class Store(Protocol):
    """The verbs. `open` first, `close` last; between them any number of calls at a time."""

    async def open(self) -> None:
        """Makes the store ready, creating what it needs. Raises `CannotOpen` when what it finds is not its own."""

    async def close(self) -> None:
        """Finishes the calls under way and lets go of everything."""

    async def ping(self) -> None:
        """Returns when the store can answer; raises `StoreUnavailable` otherwise."""

    async def info(self) -> StoreInfo:
        """What the store is and promises."""

    async def create(self, jobs: Sequence[NewJob]) -> list[Created]:
        """Adds each job unless the same request came before: SCHEDULED when its `schedule_time` is ahead, else QUEUED.

        Sameness is judged by `request_key` (remembered for 24 h, whatever became of the job), then, where the caller
        chose the id, by the id alone; the digest tells the same request from another one.
        """

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        """The jobs with these ids, in order."""

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        """Leases jobs from the head of the queue to each request in turn, up to its tokens and the worker's credit.

        The one way out of a queue. Looks past a few expired jobs. A claimed job is IN_PROGRESS with attempt one up,
        `fence` = max(fence + 1, now), a fresh current attempt, and its deadline at `delivery_timeout` (or, when that
        is 0, acknowledged at once).
        """

    async def move(self, moves: Sequence[Move]) -> list[Moved]:
        """Judges each Move's guard (`domain.guard.judge`) and applies it as `domain.move.Move` says, in order."""

    async def renew(self, renewals: Sequence[Renewal]) -> list[Renewed]:
        """Extends each lease still held under its token by its `lease_duration`, never past `limit_time`.

        The first renewal acknowledges: version up, `return_count` 0, `start_time` where it is missing, and
        `limit_time` = the sooner of what it was and now + `execution_timeout` where the job has one. Progress, when
        given, is stored and raises the version too.
        """

    async def promote(self, *, limit: int) -> int:
        """Moves SCHEDULED jobs whose time has come to QUEUED, in all queues, up to `limit`; answers how many."""

    async def overdue(self, *, queues: Sequence[str] = (), limit: int) -> Snapshot:
        """Jobs that `policy.reap` or `policy.expire` should decide on, up to `limit`: IN_PROGRESS past their deadline
        (`domain.guard.is_overdue`), then waiting past their `expire_time` (`Job.is_expired`); of all queues when none
        is named."""

    async def leased(self, *, queues: Sequence[str] = (), longer_than: int, limit: int) -> Snapshot:
        """Jobs IN_PROGRESS claimed more than `longer_than` ago, oldest first; of all queues when none is named."""

    async def purge(self, *, limit: int) -> int:
        """Removes ended jobs whose purge time has passed, and forgotten request ids, up to `limit`; answers how many.

        Removes nothing for a minute after an outage.
        """

    async def beat(self, worker: WorkerInfo) -> bool:
        """Records a worker's sign of life and ends its SILENT; a session that is not 0 becomes the stored one.

        Answers False, changing nothing, when a higher session is stored; a session of 0 (a Heartbeat) never is lower.
        """

    def hints(self) -> AsyncIterator[Hints]:
        """What happens from now on, as hints; ends when the store closes."""
