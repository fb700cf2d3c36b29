"""Each check sees what it is there for, in what any engine may show.

What is planted in a real engine stands in test_sqlite_invariants.py and test_redis_invariants.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobwire_server.domain.activity import Tally
from jobwire_server.domain.job import Attempt, AttemptOutcome, Job, JobState
from jobwire_server.domain.queue import MAX_AGEING, Queue
from jobwire_server.store.examination import KEPT, Examination
from jobwire_server.store.invariants import (
    Index,
    Invariant,
    Place,
    Sighting,
    judged,
    places_of,
    strays,
    tally_faults,
    unfit_settings,
)
from jobwire_server.store.redis import codec

BLANK = codec.decode("", b'{"queue":"q","create_time":"1"}', b"", b"", None)


def job(id: str, state: JobState, score: int, **others: Any) -> Job:
    return BLANK._replace(id=id, state=state, score=score, **others)


def changed(job: Job, field: str, value: Any) -> Job:
    return job._replace(**{field: value})


def attempt(number: int, token: bytes = b"") -> Attempt:
    return Attempt(number, "w", 1, 2, AttemptOutcome.FAILED, token)


LEASE: dict[str, Any] = {"token": b"t", "worker_id": "w", "claim_time": 4, "lease_expire_time": 9, "fence": 4}

S = job("s", JobState.SCHEDULED, 7, schedule_time=7, expire_time=8)
Q = job("q", JobState.QUEUED, 3, queue_time=3, user_id="u")
L = job("l", JobState.IN_PROGRESS, 9, **LEASE, queue_time=2, attempt=3, history=(attempt(1, b"t1"), attempt(2)))
E = job("e", JobState.COMPLETED, 20, finish_time=10, attempt=2, history=(attempt(1),), token=b"t2")._replace(
    claim_time=4,
    end_time=10,
    outcome=AttemptOutcome.COMPLETED,
)


def seen(job: Job, **others: Any) -> Sighting:
    """As an engine shows it that has nothing wrong."""
    places = {place: float(score) for place, score in places_of(job) if score is not None}
    return replace(Sighting(id=job.id, job=job, places=places, last_queue_time=3), **others)


def also_in(job: Job, place: Place) -> Sighting:
    return seen(job, places={**(seen(job).places or {}), place: 1.0})


def not_in(job: Job, index: Index, score: float | None = None) -> Sighting:
    """Missing from its index of that kind, or standing there with that score."""
    places = dict(seen(job).places or {})
    (place,) = (place for place in places if place[0] is index)
    del places[place]
    return seen(job, places=places if score is None else {**places, place: score})


def gone(**others: Any) -> Sighting:
    return Sighting(id="gone", job=None, **others)


BROKEN: dict[Invariant, list[Sighting]] = {
    Invariant.STATE_INDEX: [*(not_in(each, Index.STATE) for each in (S, Q, L, E)), not_in(Q, Index.STATE, 4)],
    Invariant.STATE_STRAY: [also_in(Q, (Index.STATE, "q:failed")), also_in(Q, (Index.STATE, "r:queued"))],
    Invariant.EXPIRY_INDEX: [not_in(S, Index.EXPIRY), not_in(S, Index.EXPIRY, 9)],
    Invariant.EXPIRY_STRAY: [
        also_in(Q, (Index.EXPIRY, "")),
        also_in(S._replace(start_time=1), (Index.EXPIRY, "")),
        also_in(L._replace(expire_time=8), (Index.EXPIRY, "")),
    ],
    Invariant.CREDIT: [not_in(L, Index.LEASE), not_in(L, Index.LEASE, 5)],
    Invariant.CREDIT_STRAY: [also_in(L, (Index.LEASE, "v")), also_in(E, (Index.LEASE, "w"))],
    Invariant.USER_INDEX: [not_in(Q, Index.USER), not_in(Q, Index.USER, 2)],
    Invariant.USER_STRAY: [also_in(Q, (Index.USER, "v"))],
    Invariant.INDEX_OF_NOTHING: [gone(places={(Index.LEASE, "w"): 1.0})],
    Invariant.ORPHAN: [gone(beside=frozenset({"result"}))],
    Invariant.BESIDE: [
        seen(E, said_beside=frozenset({"result"})),
        seen(E, said_beside=frozenset(), beside=frozenset({"detail"})),
    ],
    Invariant.VERSION: [seen(Q._replace(version=0)), seen(Q._replace(revision=3)), seen(Q._replace(revision=0))],
    Invariant.ORDER: [
        seen(Q._replace(queue_time=None)),
        seen(Q._replace(score=2)),
        seen(Q._replace(priority=0)),
        seen(Q._replace(priority=11)),
    ],
    Invariant.DUE: [seen(S._replace(schedule_time=6)), seen(S._replace(schedule_time=None))],
    Invariant.LEASE: [
        *(seen(changed(L, part, None)) for part in LEASE),
        seen(L._replace(worker_id="", fence=0)),
        seen(L._replace(limit_time=8)),
        seen(L._replace(score=8)),
    ],
    Invariant.NO_LEASE: [seen(Q._replace(acknowledged=True)), seen(E._replace(lease_expire_time=1))],
    Invariant.FINISH: [seen(E._replace(finish_time=None)), seen(E._replace(finish_time=21))],
    Invariant.ATTEMPT: [
        seen(job("first", JobState.IN_PROGRESS, 9, **LEASE)),
        seen(L._replace(attempt=2)),
        seen(L._replace(token=b"t1")),
        seen(E._replace(attempt=1)),
        seen(Q._replace(history=(attempt(1),))),
    ],
    Invariant.HISTORY: [
        seen(L._replace(history=(attempt(2), attempt(1)))),
        seen(L._replace(history=(attempt(1), attempt(1)))),
        seen(L._replace(history=(attempt(1, b"t1"), attempt(2, b"t1")))),
        seen(L._replace(attempt=22, history=tuple(map(attempt, range(1, 22))))),
    ],
    Invariant.BUDGET: [
        seen(changed(Q, count, -1))
        for count in ("attempt", "retry_count", "interruption_count", "release_count", "return_count")
    ],
    Invariant.QUEUE_UNLISTED: [seen(Q, queue_listed=False)],
    Invariant.QUEUE_LAST: [seen(Q, last_queue_time=2)],
    Invariant.HOLDER: [seen(L, holder_listed=False)],
}

OF_THE_WHOLE = {
    # What no single job shows.
    Invariant.COUNTER,
    Invariant.UNREADABLE,
    Invariant.QUEUE_TIME_TWICE,
    Invariant.TOKEN_TWICE,
    Invariant.QUEUE_HALF,
    Invariant.QUEUE_SETTINGS,
    Invariant.TALLY,
    Invariant.WORKER_HALF,
    Invariant.REMEMBERED,
    Invariant.PASSING,
    Invariant.FOREIGN,
    Invariant.KIND,
    Invariant.FILE,
}


@pytest.mark.parametrize("job", [S, Q, L, E], ids=lambda job: job.state)
def test_a_sound_job_breaks_nothing(job: Job) -> None:
    assert [*judged(seen(job)), *strays(seen(job))] == []


def test_every_invariant_has_its_plant() -> None:
    assert BROKEN.keys() | OF_THE_WHOLE == set(Invariant)
    assert not BROKEN.keys() & OF_THE_WHOLE


@pytest.mark.parametrize("invariant", BROKEN)
def test_the_invariant_is_seen_broken(invariant: Invariant) -> None:
    for sighting in BROKEN[invariant]:
        assert invariant in {found for found, _ in (*judged(sighting), *strays(sighting))}, sighting


@pytest.mark.parametrize("delay", [1, 2**53 + 1, 2**63 - 1])
def test_a_score_is_compared_as_the_double_that_engines_keep(delay: int) -> None:
    assert not list(judged(seen(S._replace(expire_time=delay))))


def test_a_number_beyond_all_numbers_is_named_and_stops_nothing() -> None:
    huge = Q._replace(score=10**400, queue_time=10**400)
    broken = dict(judged(replace(seen(Q), job=huge)))
    assert {Invariant.STATE_INDEX, Invariant.QUEUE_LAST} <= broken.keys()
    Examination(print).see(replace(seen(Q), job=huge))


UNFIT: list[dict[str, Any]] = [
    {"ageing": -1},
    {"ageing": MAX_AGEING + 1},
    {"retention": -1},
    {"max_in_flight": 0},
    {"create_time": -1},
    {"update_time": -1},
    {"revision": -1},
]


@pytest.mark.parametrize("settings", UNFIT, ids=str)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    assert unfit_settings(Queue(name="q", **settings)) == f"{name} {value}"


def test_settings_at_their_bounds_can_be() -> None:
    assert not unfit_settings(Queue(name="q", ageing=0, retention=0, max_in_flight=1))
    assert not unfit_settings(Queue(name="q", ageing=MAX_AGEING))


@pytest.mark.parametrize("fault", ["completed 1, there are 2", "created 5, at a mark 6", "failed -1, at a mark 0"])
def test_a_tally_that_has_not_counted_what_is_there_is_named(fault: str) -> None:
    event, counted, *_ = fault.replace(",", "").split()
    tally = Tally(5, 5, 5, 5, 5, 5, 5)._replace(**{event: int(counted)})
    marks = [Tally()] if event == "failed" else [Tally(), tally, Tally(created=6 if event == "created" else 1)]
    there = {JobState.COMPLETED: 2 if event == "completed" else 5, JobState.QUEUED: 9}
    assert fault in [*tally_faults(tally, there, marks)]


def test_a_tally_that_has_counted_all_that_is_there_and_more_is_sound() -> None:
    tally = Tally(9, 8, 5, 1, 2, 3, 4)
    assert not [*tally_faults(tally, {JobState.COMPLETED: 5, JobState.FAILED: 1, JobState.QUEUED: 99}, [tally])]
    assert not [*tally_faults(Tally(), {}, [])]


def broken_after(*jobs: Job) -> list[str]:
    """What is found when these are shown, and shown again as far as that is asked for."""
    examination = Examination(print)
    for each in jobs:
        examination.see(seen(each))
    if sharers := examination.shared():
        for each in jobs:
            sharers.see(each)
        sharers.tell(examination)
    return [f"{invariant.name}: {what}" for invariant, broken in examination.broken.items() for what in broken.first]


def test_two_jobs_with_one_queue_time_are_named_together() -> None:
    assert broken_after(Q, Q._replace(id="r")) == ["QUEUE_TIME_TWICE: q, r: q at 3"]
    assert broken_after(Q, Q._replace(id="r", queue="other")) == []


def test_two_leases_with_one_token_are_named_together() -> None:
    assert broken_after(L, L._replace(id="m", queue_time=1)) == ["TOKEN_TWICE: l, m"]
    assert broken_after(E, E._replace(id="f")) == [], "the token of an ended job guards nothing"


def test_a_job_that_a_scan_shows_twice_shares_nothing() -> None:
    assert broken_after(Q, Q, L, L) == []


def test_findings_without_end_take_no_memory_without_end() -> None:
    examination = Examination(print)
    for number in range(KEPT + 5):
        examination.find(Invariant.ORPHAN, str(number))
    examination.find(Invariant.ORPHAN, "0")
    broken = examination.broken[Invariant.ORPHAN]
    assert (broken.number, len(broken.first)) == (KEPT + 5, KEPT)
