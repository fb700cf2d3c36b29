"""What a store promises: the verbs, one sentence each, and the values they take and give.

Every verb takes and gives domain values, lists where there can be many, and is atomic per call: other callers see all
of it or nothing. Time is the store's own clock, in microseconds. A verb that was refused by the store raises
`StoreUnavailable` (the outcome is unknown: the same call may be repeated) or `StoreFull` (nothing happened).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from jobwire_server.domain.activity import NOTHING, Lately, Tally
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import HOUR, MINUTE, Job, JobState, NewJob
from jobwire_server.domain.move import AnyMove, Deletion
from jobwire_server.domain.queue import Queue, QueueChanges
from jobwire_server.domain.worker import Directive, WorkerInfo, WorkerRecord
from jobwire_server.store.changes import Changes
from jobwire_server.store.info import StoreInfo


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


class Standing(NamedTuple):
    """Where a job stands: what everybody wants to know after a change, and no more. A whole job costs ten times that
    to read, send and build, and a settlement is the commonest call of all."""

    id: str
    queue: str
    state: JobState
    score: int
    version: int
    revision: int
    attempt: int
    retry_count: int
    create_time: int
    update_time: int
    queue_time: int | None
    finish_time: int | None

    @classmethod
    def of(cls, job: Job) -> Standing:
        return cls(
            job.id,
            job.queue,
            job.state,
            job.score,
            job.version,
            job.revision,
            job.attempt,
            job.retry_count,
            job.create_time,
            job.update_time,
            job.queue_time,
            job.finish_time,
        )


class Created(NamedTuple):
    """The answer to one create."""

    outcome: CreateOutcome
    job_id: str
    """The stored job's id: with a repeated request id it can differ from the id in this request."""
    queue_position: int = 0
    """An estimate: jobs QUEUED in its queue, itself included; 0 when it is not QUEUED, and in a brief answer."""
    standing: Standing | None = None
    """Of a job just CREATED: all that its maker does not know; None in a brief answer."""
    job: Job | None = None
    """The job that EXISTED, as it is now; None when it has gone since."""


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
    QUIET = "quiet"
    """An operator has told it to claim no more: it gets nothing until that is lifted."""


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


class Moved(NamedTuple):
    """The answer to one Move."""

    outcome: Outcome
    standing: Standing | None = None
    """Of the job after the Move when OK; None when that removed it, and in a brief answer."""
    job: Job | None = None
    """The job as it is when LOST or STALE."""


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


class Renewed(NamedTuple):
    """The answer to one renewal: OK, GONE or LOST."""

    outcome: Outcome
    remaining: int = 0
    """Microseconds the lease has left; 0 unless OK."""
    cancel_requested: bool = False
    cancel_reason: str = ""
    standing: Standing | None = None
    """Of the job after it, when OK; None in a brief answer."""


LOOK_PAST: Final = 10
"""Expired jobs at the head of a queue that one `claim` looks past; beyond them the sweeper has to come first."""

MAX_RETURNED: Final = 20
"""At this many returned deliveries in a row a worker gets nothing more for REFUSED_FOR."""

REFUSED_FOR: Final = MINUTE

SCAN: Final = 1_000
"""Jobs that one call of `find` or `count` looks at, at most, where no index tells which ones match; indices that turn
out to be empty count as a job each."""

FOUND_BYTES: Final = 4 * 1024 * 1024
"""When the jobs found have so many bytes of submission and result together, `find` stops, however many were asked for:
memory must not follow the page size times the largest job."""


@dataclass(frozen=True, slots=True)
class Found:
    """A stretch of a listing."""

    now: int
    jobs: list[Job]
    """Those that match, in the order that `Position` describes; may be none although more follow."""
    end: Position | None
    """Behind it nothing has been looked at yet; None = nothing is behind."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs of a stretch of a listing match, by state; a state without jobs is missing."""

    by_state: dict[JobState, int]
    end: Position | None
    """As in `Found`."""


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A queue with its settings and what is in it, all at one moment."""

    settings: Queue
    counts: dict[JobState, int]
    """A state without jobs is missing."""
    head_queue_time: int | None
    """The `queue_time` of the job that is next to be claimed; None when nobody waits."""
    tally: Tally = NOTHING
    """Kept by the step that moves the jobs; as old as the queue, and gone with it."""
    lately: Lately | None = None
    minutes: tuple[Tally, ...] | None = None
    """`activity.by_minute`; as `lately`, where it was asked for."""


@dataclass(frozen=True, slots=True)
class QueuePut:
    """The answer to a change of settings: OK, GONE (no such queue), or STALE (its revision is another one)."""

    outcome: Outcome
    now: int
    queue: QueueRecord | None
    """The queue after it; None when GONE."""


@dataclass(frozen=True, slots=True)
class Queues:
    """Queues by name, ascending."""

    now: int
    since: int
    """When the store came into being."""
    queues: list[QueueRecord]


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers by id, ascending."""

    now: int
    workers: list[WorkerRecord]


WORKER_FORGOTTEN_AFTER: Final = HOUR
"""A worker that holds nothing and has not been heard of for so long leaves the registry."""


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
    directives: dict[str, Directive] = field(default_factory=dict)
    """Worker → what an operator wants of it from now on."""
    cancels: tuple[WorkerNotice, ...] = ()
    lost: tuple[WorkerNotice, ...] = ()
    expired_seen: bool = False
    """A claim looked past a job whose `expire_time` has passed: sweep soon."""


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

    async def create(self, jobs: Sequence[NewJob], *, brief: bool = False) -> list[Created]:
        """Adds each job unless the same request came before: SCHEDULED when its `schedule_time` is ahead, else QUEUED.

        Sameness is judged by `request_key` (remembered for 24 h, whatever became of the job), then, where the caller
        chose the id, by the id alone; the digest tells the same request from another one.
        """

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        """The jobs with these ids, in order."""

    async def find(self, wanted: JobFilter, *, after: Position | None = None, limit: int) -> Found:
        """Jobs that match, behind `after`, up to `limit`; fewer after SCAN jobs looked at, or FOUND_BYTES.

        Looks through the user's jobs where one is named, else through the indices of the queues and states named.
        Leaves `submission_matches` to the caller.
        """

    async def count(self, wanted: JobFilter, *, after: Position | None = None) -> Counts:
        """Counts by state: whole, and of one moment, where counters know (`JobFilter.needs_scan`); else of the next
        stretch behind `after`, as `find` would look at it. Leaves `submission_matches` to the caller."""

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        """Leases jobs from the head of the queue to each request in turn, up to its tokens and the worker's credit.

        The one way out of a queue. Looks past a few expired jobs. A claimed job is IN_PROGRESS with attempt one up,
        `fence` = max(fence + 1, now), a fresh current attempt, and its deadline at `delivery_timeout` (or, when that
        is 0, acknowledged at once).
        """

    async def move(self, moves: Sequence[AnyMove], *, brief: bool = False) -> list[Moved]:
        """Judges each Move's guard (`domain.guard.judge`) and applies it as `domain.move.Move` says, in order."""

    async def delete(self, deletions: Sequence[Deletion]) -> list[Outcome]:
        """Removes each job whose version still is the deletion's, with all that stands beside it: OK, GONE or STALE.

        The lease of one IN_PROGRESS ends: its worker's credit is freed, and it is told `lost`.
        """

    async def renew(self, renewals: Sequence[Renewal], *, brief: bool = False) -> list[Renewed]:
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

        Beside them, and not counted, a bite of queues (FORGOTTEN_AFTER) and workers (WORKER_FORGOTTEN_AFTER) to be
        forgotten. Removes nothing for a minute after an outage.
        """

    async def put_queue(
        self, name: str, changes: QueueChanges, *, revision: int | None = None, create: bool = False
    ) -> QueuePut:
        """Changes settings of a queue, whose revision must be `revision` where one is given; with `create` a missing
        queue is made. Waiting claims are told when more may be claimed than before."""

    async def queues(
        self,
        *,
        names: Sequence[str] = (),
        after: str = "",
        limit: int = 1000,
        lately: bool = False,
        minutes: bool = False,
    ) -> Queues:
        """The queues of these names that exist, or without names all behind the name `after` but for the server's own
        (`domain.webhook.is_reserved`), up to `limit`; where asked, with what happened `lately` in each, and in the
        `minutes` of the last hour."""

    async def workers(self, *, ids: Sequence[str] = (), after: str = "", limit: int = 1000, jobs: int = 0) -> Workers:
        """The workers of these ids that are known, or without ids all behind the id `after`, up to `limit`; each with
        the ids of up to `jobs` of the jobs that it holds, which may cost a look at every running job."""

    async def beat(self, worker: WorkerInfo) -> Directive | None:
        """Records a worker's sign of life and ends its SILENT; a session that is not 0 becomes the stored one. Answers
        what an operator wants of it.

        Answers None, changing nothing, when a higher session is stored; a session of 0 (a Heartbeat) never is lower.
        """

    async def seen(self, worker_ids: Sequence[str]) -> None:
        """Records that these workers have a stream open, those that are known: they are not LOST, and not forgotten.
        It ends no SILENT: nobody knows whether they read."""

    async def direct(self, worker_id: str, directive: Directive) -> bool:
        """What an operator wants of a worker from now on; False when it is not known. Held until it is changed or the
        worker is forgotten, whatever sessions come; its claims are answered QUIET unless it is NONE."""

    def hints(self) -> AsyncIterator[Hints]:
        """What happens from now on, as hints; ends when the store closes."""

    async def watch(self, hear: Callable[[Changes], None]) -> None:
        """Tells `hear` of every change of jobs from its return on, whichever server made it; ends with `unwatch`."""

    async def unwatch(self) -> None:
        """Nobody watches any more: no verb does anything for it."""

    async def caught_up(self) -> int:
        """While watched: the store's clock, once `hear` was told of all that changed before it, or of a gap."""
