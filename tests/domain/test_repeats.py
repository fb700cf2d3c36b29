"""A settlement that comes twice is recognized by the token it carries, whatever has become of the job since."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.domain.life import NOW, OTHER_TOKEN, TOKEN, applied, claimed, fail, promoted, release, running, silent

from jobwire_server.domain import policy
from jobwire_server.domain.change import token_digest
from jobwire_server.domain.job import HISTORY_LENGTH, MINUTE, Job, JobState, Verb
from jobwire_server.domain.move import Move
from jobwire_server.domain.policy import Settled, settled

Settle = Callable[[Job], Move]

SETTLEMENTS: dict[Verb, Settle] = {
    Verb.COMPLETE: lambda job: policy.complete(job.id, job.token or b"", b"42").as_move(),
    Verb.FAIL: fail,
    Verb.RELEASE: release,
}


def as_it_is(job: Job) -> Job:
    return job


def claimed_again(job: Job) -> Job:
    """Offered anew (replayed, where it had ended), and held by another worker."""
    if job.state.is_ended:
        job = applied(job, policy.replay(job, etag=None))
    if job.state is JobState.SCHEDULED:
        job = promoted(job, NOW + MINUTE)
    return claimed(job, OTHER_TOKEN, NOW + MINUTE)


def completed_by_another(job: Job) -> Job:
    again = claimed_again(job)
    return applied(again, policy.complete(again.id, OTHER_TOKEN, None).as_move(), NOW + MINUTE)


def replayed_thrice(job: Job) -> Job:
    for _ in range(3):
        job = applied(completed_by_another(job), policy.replay(completed_by_another(job), etag=None))
    return job


LATER = [as_it_is, claimed_again, completed_by_another, replayed_thrice]


@pytest.mark.parametrize("later", LATER, ids=[step.__name__ for step in LATER])
@pytest.mark.parametrize("again", SETTLEMENTS)
@pytest.mark.parametrize("first", SETTLEMENTS)
def test_a_repeat_is_alike_with_the_same_verb_and_otherwise_with_another(
    first: Verb, again: Verb, later: Callable[[Job], Job]
) -> None:
    job = later(applied(running(), SETTLEMENTS[first](running())))
    assert settled(job, TOKEN, again) is (Settled.ALIKE if again is first else Settled.OTHERWISE)


@pytest.mark.parametrize("later", LATER, ids=[step.__name__ for step in LATER])
def test_a_permanent_failure_is_recognized_as_a_failure(later: Callable[[Job], Job]) -> None:
    job = later(applied(running(), fail(running(), permanent=True)))
    assert settled(job, TOKEN, Verb.FAIL) is Settled.ALIKE
    assert settled(job, TOKEN, Verb.COMPLETE) is Settled.OTHERWISE


@pytest.mark.parametrize("retries_used", [0, 3])
def test_a_release_too_often_is_recognized_as_a_release(retries_used: int) -> None:
    job = running(release_count=policy.MAX_RELEASES, retry_count=retries_used)
    after = applied(job, release(job))
    assert settled(after, TOKEN, Verb.RELEASE) is Settled.ALIKE


@pytest.mark.parametrize("verb", [Verb.FAIL, Verb.RELEASE])
def test_a_settlement_that_a_cancel_turned_into_canceled_is_recognized(verb: Verb) -> None:
    job = running(cancel_requested=True)
    after = applied(job, SETTLEMENTS[verb](job))
    assert after.state is JobState.CANCELED
    assert settled(after, TOKEN, verb) is Settled.ALIKE
    assert settled(after, TOKEN, Verb.COMPLETE) is Settled.OTHERWISE


@pytest.mark.parametrize("verb", SETTLEMENTS)
@pytest.mark.parametrize(
    "job",
    [silent(), silent(interruption_count=3), silent(cancel_requested=True), silent(limit_time=0, score=0)],
    ids=["taken back", "dead", "canceled", "timed out"],
)
def test_a_token_whose_lease_was_lost_never_settled(job: Job, verb: Verb) -> None:
    after = applied(job, policy.reap(job, now=NOW, random=0.5))
    assert settled(after, TOKEN, verb) is Settled.NEVER


@pytest.mark.parametrize("verb", SETTLEMENTS)
def test_a_token_that_was_never_given_never_settled(verb: Verb) -> None:
    assert settled(running(), OTHER_TOKEN, verb) is Settled.NEVER
    assert settled(running(), TOKEN, verb) is Settled.NEVER, "it holds the job, and has settled nothing yet"


def test_a_token_is_remembered_for_twenty_attempts() -> None:
    job = applied(running(), release(running()))
    for nth in range(HISTORY_LENGTH):
        assert settled(job, TOKEN, Verb.RELEASE) is Settled.ALIKE, nth
        job = claimed(job, nth.to_bytes(16, "big"), NOW)
        job = applied(job, fail(job, retry_delay=0)) if nth == 0 else applied(job, release(job))
        job = promoted(job, NOW) if job.state is JobState.SCHEDULED else job
    assert settled(job, TOKEN, Verb.RELEASE) is Settled.NEVER


def test_the_store_keeps_a_digest_never_the_token() -> None:
    assert token_digest(b"0123456789abcdef") != b"0123456789abcdef"
    assert len(token_digest(b"0123456789abcdef")) == 16
    assert token_digest(b"0123456789abcdef") != token_digest(b"0123456789abcdeg")
