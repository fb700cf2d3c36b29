"""What callers do with jobs: reads a job, lets the policy decide, hands the Move to the store, and decides again when
the job has changed in between."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Final, NamedTuple

from jobwire_server.domain import policy
from jobwire_server.domain.change import Change, Edit, Fail, Release, Report
from jobwire_server.domain.errors import JobwireError, Reason, job_not_found
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import Job, JobError, JobState, NewJob, Verb
from jobwire_server.domain.move import Completion, JobChanges, Move
from jobwire_server.domain.policy import Recovery, Settled
from jobwire_server.service.claim_events import Assignment
from jobwire_server.service.coalescer import Coalescer, waits
from jobwire_server.service.words import Bring, no_words
from jobwire_server.store.base import Created, CreateOutcome, Moved, Renewal, Renewed, Standing, Store
from jobwire_server.telemetry.metrics import Registry

DECISIONS: Final = 5
"""How often one change is decided anew because the job changed in between; then the caller hears CONTENDED."""

TOGETHER: Final = 500
"""Changes of concurrent callers that go to the store in one call: that is one script, and one fsync, for all."""

_KINDS: Final = (False, True)

log = logging.getLogger("jobwire.jobs")

Decided = Completion | Fail | Release | Edit
"""Changes that need to know the job; of the completions those of whose end somebody is to be told."""

_OUTCOME: Final = itemgetter(0)

Acknowledged = Callable[[Iterable[bytes]], None]
"""Told the token digests whose holders have given a sign of life."""


class Updated(NamedTuple):
    """An accepted change."""

    standing: Standing | None
    """Of the job after it; None when it was removed at its end (retention 0), and where a brief answer will do."""
    already_applied: bool = False
    """The same settlement had been accepted before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverRequest:
    """Which leases to take back: those past their deadline, and with `stuck_for` those held longer than that."""

    queues: tuple[str, ...] = ()
    stuck_for: int | None = None
    recovery: Recovery = field(default_factory=Recovery)
    max_jobs: int = 1000
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """Ids of the jobs taken back, by where they went."""

    requeued: list[str] = field(default_factory=list)
    scheduled: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    more: bool = False
    """`max_jobs` was reached and there may be more."""

    def add(self, job_id: str, state: JobState) -> None:
        lists = {
            JobState.QUEUED: self.requeued,
            JobState.SCHEDULED: self.scheduled,
            JobState.FAILED: self.failed,
            JobState.CANCELED: self.canceled,
        }
        lists[state].append(job_id)


class JobService:
    """Every change a caller can make to a job. Holds no state of its own; any number of calls at a time."""

    def __init__(
        self,
        store: Store,
        *,
        acknowledged: Acknowledged = lambda _: None,
        bring: Bring = no_words,
        metrics: Registry | None = None,
    ) -> None:
        metrics = metrics or Registry()
        self._store = store
        self._bring = bring
        self._acknowledged = acknowledged
        # By whether the answer is brief: those who ask for one kind travel together.
        self._create: Final = [
            Coalescer(partial(store.create, brief=brief), batch=TOGETHER, waits=waits(metrics, "create")).call
            for brief in _KINDS
        ]
        # Apart from other Moves: a store has a shorter way for a call of completions alone.
        self._complete: Final = [
            Coalescer(partial(store.move, brief=brief), batch=TOGETHER, waits=waits(metrics, "complete")).call
            for brief in _KINDS
        ]
        self._move: Final = Coalescer(store.move, batch=TOGETHER, waits=waits(metrics, "move")).call
        self._renew: Final = Coalescer(store.renew, batch=TOGETHER, waits=waits(metrics, "renew")).call

    async def create(self, jobs: Sequence[NewJob], *, brief: bool = False) -> list[Created | JobwireError]:
        """Adds jobs, an outcome for each: a repeated request answers the stored job, another one's id is refused.

        `brief`: what was created is answered without its standing.
        """
        return [_create_answer(new, made) for new, made in zip(jobs, await self._create[brief](jobs), strict=True)]

    async def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """The jobs as they are now; None for each that does not exist."""
        return (await self._store.get(job_ids)).jobs

    async def update(self, changes: Sequence[Change], *, brief: bool = False) -> list[Updated | JobwireError]:
        """Applies changes, an outcome for each; several of one job in their order, those of different jobs together.

        `brief`: nobody will look at the standings, so that completions come without.
        """
        completions = [change for change in changes if isinstance(change, Completion)]
        if len(completions) == len(changes):
            return await self._completed(completions, brief=brief)
        answers: dict[int, Updated | JobwireError] = {}
        for indexes in _rounds(changes):
            answers |= await self._round({i: changes[i] for i in indexes}, brief=brief)
        return [answers[i] for i in range(len(changes))]

    async def cancel(self, job_id: str, *, reason: str, grace: int, etag: str | None) -> Job:
        """Cancels a waiting job, asks the worker of a running one to stop, leaves an ended one as it is."""
        return await self._decide(
            job_id, lambda job, now: policy.cancel(job, reason=reason, grace=grace, etag=etag, now=now)
        )

    async def replay(self, job_id: str, *, etag: str | None) -> Job:
        """Lets an ended job run again."""
        return await self._decide(job_id, lambda job, _: policy.replay(job, etag=etag))

    async def delete(self, job_id: str, *, force: bool, etag: str | None) -> None:
        """Removes a job; one that a worker has only by `force`."""
        for _ in range(DECISIONS):
            [job] = (await self._store.get([job_id])).jobs
            if job is None:
                raise job_not_found(job_id)
            match (await self._store.delete([policy.delete(job, force=force, etag=etag)]))[0]:
                case Outcome.OK:
                    return
                case Outcome.GONE:
                    raise job_not_found(job_id)
        raise _contended(job_id)

    async def recover(self, request: RecoverRequest) -> Recovered:
        """Takes back leases past their deadline (but for an outage's pause) and, when asked, those held too long."""
        found = await self._store.overdue(queues=request.queues, limit=request.max_jobs + 1)
        moves = [
            self._bring(job, policy.reap(job, now=found.now, random=random.random(), recovery=request.recovery))
            for job in found.jobs
            if job is not None and job.state is JobState.IN_PROGRESS
        ]
        if request.stuck_for is not None and len(moves) <= request.max_jobs:
            seen = {move.job_id for move in moves}
            held = await self._store.leased(
                queues=request.queues, longer_than=request.stuck_for, limit=request.max_jobs + 1
            )
            moves += [
                self._bring(job, policy.recover(job, now=held.now, random=random.random(), recovery=request.recovery))
                for job in held.jobs
                if job is not None and job.id not in seen
            ]
        recovered = Recovered(more=len(moves) > request.max_jobs)
        moves = moves[: request.max_jobs]
        # Whoever changed meanwhile has shown a sign of life: it is not stuck, and its guard keeps it.
        moved = [] if request.validate_only else await self._move(moves)
        for i, move in enumerate(moves):
            if request.validate_only or moved[i].outcome is Outcome.OK:
                recovered.add(move.job_id, move.to)
        return recovered

    async def set_aside(self, assignments: Sequence[Assignment]) -> None:
        """Ends leased jobs whose stored record cannot be read as dead letters."""
        error = JobError("CORRUPT_JOB", "the stored record of this job could not be read")
        moves = [
            self._bring(
                each.job, policy.fail(each.job, each.digest, error, permanent=True, retry_delay=None, now=0, random=0)
            )
            for each in assignments
        ]
        for move in moves:
            log.error("job %s cannot be read: set aside as FAILED, CORRUPT_JOB", move.job_id)
        await self._move(moves)

    async def _decide(self, job_id: str, decision: Callable[[Job, int], Move | None]) -> Job:
        """Reads, decides and applies until the store takes it; answers the job after it."""
        for _ in range(DECISIONS):
            snapshot = await self._store.get([job_id])
            job = snapshot.jobs[0]
            if job is None:
                raise job_not_found(job_id)
            move = decision(job, snapshot.now)
            if move is None:
                return job
            [moved] = await self._move([self._bring(job, move)])
            if moved.outcome is Outcome.OK:
                [after] = (await self._store.get([job_id])).jobs
                return after or job._replace(state=move.to)
        raise _contended(job_id)

    async def _round(self, changes: dict[int, Change], *, brief: bool) -> dict[int, Updated | JobwireError]:
        """Applies changes of distinct jobs."""
        completions = {i: change for i, change in changes.items() if isinstance(change, Completion)}
        reports = {i: change for i, change in changes.items() if isinstance(change, Report)}
        others = {i: change for i, change in changes.items() if not isinstance(change, Completion | Report)}
        completed, reported, changed = await asyncio.gather(
            self._completed([*completions.values()], brief=brief),
            self._reported([*reports.values()]),
            self._change(others),
        )
        return {
            **dict(zip(completions, completed, strict=True)),
            **dict(zip(reports, reported, strict=True)),
            **changed,
        }

    async def _completed(self, completions: Sequence[Completion], *, brief: bool) -> list[Updated | JobwireError]:
        if not completions:
            return []
        moved = await self._complete[brief](completions)
        self._acknowledged([completion.token for completion in completions])
        answers = [
            Updated(standing)
            if outcome is Outcome.OK
            else _refused(completion.job_id, completion.token, Verb.COMPLETE, job)
            for completion, (outcome, standing, job) in zip(completions, moved, strict=True)
        ]
        if Outcome.STALE in map(_OUTCOME, moved):  # of their end somebody is to be told
            stale = {i: completions[i] for i, each in enumerate(moved) if each.outcome is Outcome.STALE}
            for i, answer in (await self._change(stale)).items():
                answers[i] = answer
        return answers

    async def _reported(self, reports: Sequence[Report]) -> list[Updated | JobwireError]:
        if not reports:
            return []
        renewals = [
            Renewal(job_id=report.job_id, token=report.token, fraction=report.fraction, message=report.message)
            for report in reports
        ]
        renewed = await self._renew(renewals)
        self._acknowledged([renewal.token for renewal in renewals])
        return [_report_answer(report, answer) for report, answer in zip(reports, renewed, strict=True)]

    async def _change(self, changes: Mapping[int, Decided]) -> dict[int, Updated | JobwireError]:
        """Decides and applies changes of distinct jobs; those found STALE are read and decided again."""
        answers: dict[int, Updated | JobwireError] = {}
        pending = changes
        for _ in range(DECISIONS):
            if not pending:
                return answers
            moves = await self._moves(pending, answers)
            moved = await self._move(list(moves.values())) if moves else []
            stale = {}
            for (i, move), result in zip(moves.items(), moved, strict=True):
                if result.outcome is Outcome.STALE:
                    stale[i] = pending[i]
                else:
                    answers[i] = _change_answer(move, pending[i], result)
            self._acknowledged([change.token for change in pending.values() if not isinstance(change, Edit)])
            pending = stale
        return answers | {i: _contended(change.job_id) for i, change in pending.items()}

    async def _moves(
        self, changes: Mapping[int, Decided], answers: dict[int, Updated | JobwireError]
    ) -> dict[int, Move]:
        """The Move for each change that is allowed; the refusals go into `answers`."""
        moves: dict[int, Move] = {}
        snapshot = await self._store.get([change.job_id for change in changes.values()])
        for (i, change), job in zip(changes.items(), snapshot.jobs, strict=True):
            try:
                if job is None:
                    raise job_not_found(change.job_id)
                moves[i] = self._bring(job, _decided(change, job, snapshot.now))
            except JobwireError as error:
                answers[i] = error
        return moves


def _decided(change: Decided, job: Job, now: int) -> Move:
    match change:
        case Completion():
            return policy.complete_as_read(job, change)
        case Fail():
            return policy.fail(
                job,
                change.token,
                change.error,
                permanent=change.permanent,
                retry_delay=change.retry_delay,
                now=now,
                random=random.random(),
            )
        case Release():
            return policy.release(job, change.token, delay=change.delay, now=now, random=random.random())
        case Edit():
            changes: JobChanges = change.changes
            if change.rewrite is not None:
                changes = {**changes, "submission": change.rewrite(job.submission)}
            return policy.edit(job, changes, payload=change.payload, etag=change.etag, now=now)


def _create_answer(new: NewJob, made: Created) -> Created | JobwireError:
    match made.outcome:
        case CreateOutcome.CREATED | CreateOutcome.EXISTED:
            return made
        case CreateOutcome.ID_TAKEN:
            return JobwireError(
                Reason.JOB_EXISTS, f"another job has the id {new.id!r}", metadata={"job_id": made.job_id}
            )
        case CreateOutcome.REQUEST_REUSED:
            return JobwireError(
                Reason.REQUEST_ID_REUSED,
                f"this request_id was used for other content: it created job {made.job_id!r}",
                field="request_id",
                metadata={"job_id": made.job_id},
            )


def _change_answer(move: Move, change: Decided, moved: Moved) -> Updated | JobwireError:
    if moved.outcome is Outcome.OK:
        return Updated(moved.standing)
    if isinstance(change, Edit):
        return job_not_found(change.job_id)
    return _refused(change.job_id, change.token, move.verb, moved.job)


def _refused(job_id: str, token: bytes, verb: Verb, job: Job | None) -> Updated | JobwireError:
    """What a settlement is told whose token guards nothing any more; `job` as it is now."""
    if job is None:
        return job_not_found(job_id)
    match policy.settled(job, token, verb):
        case Settled.ALIKE:
            return Updated(Standing.of(job), already_applied=True)
        case Settled.OTHERWISE:
            outcome = policy.settled_as(job, token)
            return JobwireError(
                Reason.ALREADY_SETTLED,
                f"this lease of job {job_id!r} was settled before, in another way",
                metadata={"job_id": job_id, "outcome": "" if outcome is None else outcome.name},
            )
        case Settled.NEVER:
            return _lease_lost(job_id)


def _report_answer(report: Report, renewed: Renewed) -> Updated | JobwireError:
    match renewed.outcome:
        case Outcome.OK:
            return Updated(renewed.standing)
        case Outcome.GONE:
            return job_not_found(report.job_id)
        case _:
            return _lease_lost(report.job_id)


def _lease_lost(job_id: str) -> JobwireError:
    return JobwireError(
        Reason.LEASE_LOST,
        f"this token is not, or no longer, the lease of job {job_id!r}: stop working on it",
        metadata={"job_id": job_id},
    )


def _contended(job_id: str) -> JobwireError:
    return JobwireError(
        Reason.CONTENDED,
        f"job {job_id!r} kept changing while this change was decided; nothing was done",
        retry_after=100_000,
        metadata={"job_id": job_id},
    )


def _rounds(changes: Sequence[Change]) -> Iterator[list[int]]:
    """Indexes of the changes in rounds of distinct jobs: a job's n-th change stands in the n-th round."""
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for i, change in enumerate(changes):
        nth = seen.get(change.job_id, 0)
        seen[change.job_id] = nth + 1
        if nth == len(rounds):
            rounds.append([])
        rounds[nth].append(i)
    return iter(rounds)
