"""The judge of the fault tests: it has nothing against a good run, and finds each broken promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.faults.history import ACCEPTED, Event, Kind
from tests.faults.verdict import CHECKS, LEASE_LOST, Evidence, findings

from jobwire.v1.job_pb2 import (
    ATTEMPT_OUTCOME_COMPLETED,
    ATTEMPT_OUTCOME_FAILED,
    ATTEMPT_OUTCOME_INTERRUPTED,
    JOB_STATE_COMPLETED,
    JOB_STATE_QUEUED,
    Attempt,
    AttemptOutcome,
    Job,
    Payload,
)


def event(kind: Kind, worker: str, fence: int, job_id: str = "job", answer: str = "") -> Event:
    return Event(worker=worker, kind=kind, job_id=job_id, fence=fence, at=0, answer=answer)


def run(worker: str, fence: int, job_id: str = "job", answer: str = ACCEPTED) -> list[Event]:
    """From its start to the answer to its settlement."""
    return [
        event(Kind.STARTED, worker, fence, job_id),
        event(Kind.ENDED, worker, fence, job_id),
        event(Kind.SETTLED, worker, fence, job_id, answer),
    ]


def attempt(number: int, worker: str, outcome: AttemptOutcome.ValueType, start: int, end: int) -> Attempt:
    made = Attempt(number=number, worker_id=worker, outcome=outcome)
    made.start_time.FromMicroseconds(start)
    made.end_time.FromMicroseconds(end)
    return made


def job(id: str = "job", request: str = "request") -> Job:
    """Stopped had it first, for longer than its lease; then it was done by another."""
    return Job(
        id=id,
        payload=Payload(text=request),
        result=Payload(text=f"done {request}"),
        state=JOB_STATE_COMPLETED,
        attempt=2,
        interruption_count=1,
        fence=20,
        attempts=[
            attempt(1, "stopped", ATTEMPT_OUTCOME_INTERRUPTED, 10, 19),
            attempt(2, "other", ATTEMPT_OUTCOME_COMPLETED, 20, 30),
        ],
    )


GOOD = Evidence(
    created={"request": "job"},
    jobs={"job": job()},
    total=1,
    events=[
        event(Kind.STARTED, "stopped", 10),
        *run("other", 20),
        event(Kind.ENDED, "stopped", 10),
        event(Kind.SETTLED, "stopped", 10, answer=LEASE_LOST),
    ],
    killed=frozenset(),
    silent=frozenset({"stopped"}),
    credit=1,
    repeats={("job", 10): LEASE_LOST, ("job", 20): "repeated"},
)


def with_job(change: Callable[[Job], object]) -> Evidence:
    changed = job()
    change(changed)
    return replace(GOOD, jobs={"job": changed})


def with_more(*events: Event) -> Evidence:
    return replace(GOOD, events=[*GOOD.events, *events])


def at_once() -> Evidence:
    """One worker has two jobs at the same time, by the store's word alone."""
    jobs = {id: job(id, f"request of {id}") for id in ("job", "twin")}
    created = {f"request of {id}": id for id in jobs}
    first = [event(Kind.STARTED, "other", 20, id) for id in jobs]
    return replace(GOOD, jobs=jobs, created=created, total=2, events=first)


BROKEN: dict[str, list[Evidence]] = {
    "an acknowledged create is gone": [replace(GOOD, jobs={})],
    "a request has made another number of jobs than one": [
        replace(GOOD, total=2),
        replace(GOOD, created={"request": "job", "another": "job"}),
        with_job(lambda job: job.payload.MergeFrom(Payload(text="of somebody else"))),
    ],
    "a job is not completed": [
        with_job(lambda job: setattr(job, "state", JOB_STATE_QUEUED)),
        with_job(lambda job: job.ClearField("result")),
    ],
    "attempts that cannot be": [
        with_job(lambda job: setattr(job, "attempt", 3)),
        with_job(lambda job: setattr(job, "interruption_count", 2)),
        with_job(lambda job: setattr(job, "retry_count", 1)),
        with_job(lambda job: setattr(job.attempts[0], "number", 2)),
        with_job(lambda job: setattr(job.attempts[0], "outcome", ATTEMPT_OUTCOME_FAILED)),
        with_job(lambda job: setattr(job.attempts[0], "outcome", ATTEMPT_OUTCOME_COMPLETED)),
        with_job(lambda job: job.attempts.pop()),
    ],
    "an interruption of a worker that was heard": [replace(GOOD, silent=frozenset())],
    "settled twice": [with_more(event(Kind.SETTLED, "stopped", 10, answer=ACCEPTED)), with_more(*run("other", 20))],
    "settled by another than its holder": [
        with_more(event(Kind.SETTLED, "stopped", 20, answer=ACCEPTED)),
        with_more(event(Kind.SETTLED, "other", 19, answer=ACCEPTED)),
        replace(GOOD, events=GOOD.events[:2]),
    ],
    "refused without reason": [
        with_more(event(Kind.SETTLED, "stopped", 10, answer="JOB_NOT_FOUND")),
        with_more(event(Kind.SETTLED, "other", 20, answer=LEASE_LOST)),
    ],
    "a fence that does not rise": [
        with_more(event(Kind.STARTED, "other", 20)),
        with_more(event(Kind.STARTED, "other", 19)),
        with_more(event(Kind.STARTED, "stopped", 20)),
        with_more(event(Kind.STARTED, "third", 21)),
        replace(GOOD, events=[]),
    ],
    "leased twice at a time": [with_job(lambda job: job.attempts[0].end_time.FromMicroseconds(21))],
    "more leases than credit": [at_once()],
    "a worker that runs too much": [
        with_more(event(Kind.STARTED, "stopped", 1), event(Kind.STARTED, "stopped", 2)),
        with_more(event(Kind.STARTED, "stopped", 1), event(Kind.STARTED, "stopped", 1, "another job")),
    ],
    "a late settlement was not answered as it should": [
        replace(GOOD, repeats={("job", 10): ACCEPTED}),
        replace(GOOD, repeats={("job", 10): "repeated"}),
        replace(GOOD, repeats={("job", 20): LEASE_LOST}),
        replace(GOOD, repeats={("job", 20): ACCEPTED}),
    ],
}
"""Broken promise → runs in which it is; whatever else is broken there."""


def test_nothing_is_found_in_a_good_run() -> None:
    assert findings(GOOD) == []


@pytest.mark.parametrize("promise", CHECKS)
def test_the_broken_promise_is_found(promise: str) -> None:
    for evidence in BROKEN[promise]:
        assert [finding for finding in findings(evidence) if finding.startswith(promise)], evidence


def test_a_job_that_its_killed_worker_completed_is_no_finding() -> None:
    """It died before it was told, or before it could say so."""
    untold = [event(Kind.STARTED, "stopped", 10), event(Kind.STARTED, "other", 20)]
    assert findings(replace(GOOD, events=untold, killed=frozenset({"other"}))) == []
