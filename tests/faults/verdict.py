"""What a server that keeps its promises cannot have done, judged by what it answers and what its clients have seen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.history import REPEATED, Event, Kind

from jobwire.v1.job_pb2 import (
    ATTEMPT_OUTCOME_COMPLETED,
    ATTEMPT_OUTCOME_INTERRUPTED,
    JOB_STATE_COMPLETED,
    Attempt,
    Job,
)

LEASE_LOST: Final = "LEASE_LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Of a run in which every handler does its job, after its end."""

    created: Mapping[str, str]
    """Request id → id of its job, of every create that was acknowledged."""
    jobs: Mapping[str, Job]
    """As the server answers them."""
    total: int
    """Jobs that there are, whoever asked for them."""
    events: Sequence[Event]
    killed: frozenset[str]
    """Workers that cannot have told all."""
    silent: frozenset[str]
    """Workers that were not heard for a whole lease: only they may have been interrupted."""
    credit: int
    repeats: Mapping[tuple[str, int], str]
    """(job, fence) → what a completion under its token was answered afterwards."""


Check = Callable[[Evidence], Iterator[object]]


def _lost_jobs(evidence: Evidence) -> Iterator[object]:
    yield from sorted(set(evidence.created.values()) - evidence.jobs.keys())


def _made_twice(evidence: Evidence) -> Iterator[object]:
    wanted = {job_id: request_id for request_id, job_id in evidence.created.items()}
    if len(wanted) != len(evidence.created):
        yield f"{len(evidence.created)} requests, {len(wanted)} jobs"
    if evidence.total != len(evidence.created):
        yield f"{len(evidence.created)} requests, {evidence.total} jobs in the store"
    for job in evidence.jobs.values():
        if job.payload.text != wanted.get(job.id):
            yield f"{job.id} has the payload {job.payload.text}, not {wanted.get(job.id)}"


def _unfinished(evidence: Evidence) -> Iterator[object]:
    for job in evidence.jobs.values():
        if job.state != JOB_STATE_COMPLETED or job.result.text != f"done {job.payload.text}":
            yield job


def _attempts(evidence: Evidence) -> Iterator[object]:
    for job in evidence.jobs.values():
        outcomes = [attempt.outcome for attempt in job.attempts]
        numbers = [attempt.number for attempt in job.attempts]
        interruptions = len(outcomes) - 1
        if (
            outcomes != [ATTEMPT_OUTCOME_INTERRUPTED] * interruptions + [ATTEMPT_OUTCOME_COMPLETED]
            or numbers != list(range(1, job.attempt + 1))
            or (job.interruption_count, job.retry_count) != (interruptions, 0)
        ):
            yield job


def _interrupted(evidence: Evidence) -> Iterator[object]:
    for job in evidence.jobs.values():
        for attempt in job.attempts:
            if attempt.outcome == ATTEMPT_OUTCOME_INTERRUPTED and attempt.worker_id not in evidence.silent:
                yield f"{job.id}: {attempt}"


def _accepted(evidence: Evidence) -> dict[str, list[Event]]:
    accepted: dict[str, list[Event]] = defaultdict(list)
    for event in evidence.events:
        if event.kind is Kind.SETTLED and event.is_accepted:
            accepted[event.job_id].append(event)
    return accepted


def _settled_twice(evidence: Evidence) -> Iterator[object]:
    yield from (settlements for settlements in _accepted(evidence).values() if len(settlements) > 1)


def _settled_by_another(evidence: Evidence) -> Iterator[object]:
    accepted = _accepted(evidence)
    for job in evidence.jobs.values():
        if not job.attempts:
            continue
        holder = job.attempts[-1].worker_id
        for settlement in accepted[job.id]:
            if (settlement.worker, settlement.fence) != (holder, job.fence):
                yield f"{job.id}: held by {holder} with fence {job.fence}, settled by {settlement}"
        if not accepted[job.id] and holder not in evidence.killed:
            yield f"{job.id}: {holder} was never told that its settlement was accepted"


def _refusals(evidence: Evidence) -> Iterator[object]:
    for event in evidence.events:
        if event.kind is Kind.SETTLED and not event.is_accepted:
            job = evidence.jobs.get(event.job_id)
            if event.answer != LEASE_LOST or (job is not None and job.fence == event.fence):
                yield event


def _fences(evidence: Evidence) -> Iterator[object]:
    latest: dict[tuple[str, str], int] = {}
    given: dict[tuple[str, int], str] = {}
    for event in evidence.events:
        if event.kind is not Kind.STARTED:
            continue
        if event.fence <= latest.get((event.worker, event.job_id), 0):
            yield f"{event} after {latest[event.worker, event.job_id]}"
        latest[event.worker, event.job_id] = event.fence
        if (other := given.setdefault((event.job_id, event.fence), event.worker)) != event.worker:
            yield f"{event}, which {other} has started as well"
        job = evidence.jobs.get(event.job_id)
        if job is not None and event.fence > job.fence:
            yield f"{event} above the job's own {job.fence}"
    for job in evidence.jobs.values():
        if job.attempts and given.get((job.id, job.fence)) != job.attempts[-1].worker_id:
            yield f"{job.id}: {job.attempts[-1].worker_id} has never started {job.fence}"


def _start(attempt: Attempt) -> int:
    return attempt.start_time.ToMicroseconds()


def _end(attempt: Attempt) -> int:
    return attempt.end_time.ToMicroseconds()


def _leased_twice(evidence: Evidence) -> Iterator[object]:
    for job in evidence.jobs.values():
        for earlier, later in zip(job.attempts, job.attempts[1:], strict=False):
            if _start(later) < _end(earlier):
                yield f"{job.id}: {earlier} {later}"


def _beyond_credit(evidence: Evidence) -> Iterator[object]:
    """By the store's own times of the leases that count as attempts."""
    changes = [
        change
        for job in evidence.jobs.values()
        for attempt in job.attempts
        for change in ((_start(attempt), 1, attempt.worker_id), (_end(attempt), -1, attempt.worker_id))
    ]
    held: Counter[str] = Counter()
    for moment, change, worker in sorted(changes):  # of one moment, ends come first
        held[worker] += change
        if held[worker] > evidence.credit:
            yield f"{worker} holds {held[worker]} at {moment}"


def _running(evidence: Evidence) -> Iterator[object]:
    running: dict[str, dict[str, int]] = defaultdict(dict)
    for event in evidence.events:
        runs = running[event.worker]
        if event.kind is Kind.STARTED:
            if event.job_id in runs:
                yield f"{event} while it runs {runs[event.job_id]}"
            runs[event.job_id] = event.fence
            if len(runs) > evidence.credit:
                yield f"{event} beside {len(runs) - 1} others"
        elif event.kind is Kind.ENDED:
            runs.pop(event.job_id, None)


def _repeats(evidence: Evidence) -> Iterator[object]:
    for (job_id, fence), answer in evidence.repeats.items():
        is_the_last = job_id in evidence.jobs and fence == evidence.jobs[job_id].fence
        if answer != (REPEATED if is_the_last else LEASE_LOST):
            yield f"{job_id} with {'its' if is_the_last else 'an older'} fence {fence}: {answer}"


CHECKS: Final[Mapping[str, Check]] = {
    "an acknowledged create is gone": _lost_jobs,
    "a request has made another number of jobs than one": _made_twice,
    "a job is not completed": _unfinished,
    "attempts that cannot be": _attempts,
    "an interruption of a worker that was heard": _interrupted,
    "settled twice": _settled_twice,
    "settled by another than its holder": _settled_by_another,
    "refused without reason": _refusals,
    "a fence that does not rise": _fences,
    "leased twice at a time": _leased_twice,
    "more leases than credit": _beyond_credit,
    "a worker that runs too much": _running,
    "a late settlement was not answered as it should": _repeats,
}
"""Every promise by the sentence that says how it is broken."""


def findings(evidence: Evidence) -> list[str]:
    """Every broken promise with what breaks it; empty = all is well."""
    return [f"{name}: {what}" for name, check in CHECKS.items() for what in check(evidence)]


def starts(events: Sequence[Event]) -> Counter[str]:
    """Job → how often a handler was started for it."""
    return Counter(event.job_id for event in events if event.kind is Kind.STARTED)
