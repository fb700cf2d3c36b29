"""What the design promises of every job, as checks on each change, whoever makes it and whatever got lost before.

`Truth` is what really happened. It stands beside the protocol, which never looks at it: that a job was cancelled is
true here even where its row has forgotten it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.domain.life import DELIVERY, LEASE, NOW

from jobwire_server.domain.job import ENDED, TRANSITIONS, WAITING, Job, JobState, Verb
from jobwire_server.domain.policy import Settled


class Broken(Exception):
    """A promise does not hold; the message is what happened instead."""


WORKERS: Final = ("A", "B")
Accounts = tuple[bool, bool]
"""Whether a job stands on the account of worker A, and of B: the credit that they use."""


class Settlement(NamedTuple):
    """A settlement that the store accepted."""

    token: bytes
    verb: Verb
    was_cancel: bool
    """It ended the job CANCELED: then a failure and a release are the same."""


class Truth(NamedTuple):
    """What really happened in this life of the job (since its create or its last replay)."""

    granted_until: int = 0
    """To when the store last told the holder that it has the job; 0 where nobody has it."""
    acknowledged: bool = False
    """The holder has been heard."""
    started: bool = False
    """Some holder has been heard, or has settled."""
    canceled: bool = False
    """Someone was told that the job is canceled, or will be."""
    settlements: tuple[Settlement, ...] = ()
    """Through all lives."""


SETTLEMENTS: Final = (Verb.COMPLETE, Verb.FAIL, Verb.RELEASE)
TAKEN_BACK: Final = (Verb.HAND_BACK, Verb.REAP, Verb.RECOVER)
_AFTER_THE_END: Final = (Verb.REPLAY, Verb.EDIT, Verb.DELETE, Verb.PURGE)
_HEEDED: Final = (JobState.IN_PROGRESS, JobState.CANCELED, JobState.COMPLETED)


def promise(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def claimed(truth: Truth, before: Job, after: Job) -> Truth:
    """A worker was given the job."""
    promise(truth.granted_until <= NOW, "two workers have a living lease of the job")
    promise(not truth.canceled, "a canceled job runs again")
    promise(not before.is_expired(NOW), "an expired job was handed out")
    promise(after.fence > before.fence, "the fence did not rise")
    promise(after.version > before.version, "a claim did not raise the version")
    assert after.lease_expire_time is not None
    return truth._replace(
        granted_until=after.lease_expire_time,
        acknowledged=after.acknowledged,
        started=truth.started or after.acknowledged,
    )


def renewed(truth: Truth, before: Job, after: Job | None, token: bytes) -> Truth:
    """A worker's sign of life was answered: OK with the job after it, or LOST."""
    is_holder = before.state is JobState.IN_PROGRESS and before.token == token
    if after is None:
        promise(not is_holder, "the holder was told that its lease is lost")
        return truth
    promise(is_holder, "a worker whose lease is lost was told that it has the job")
    promise(after.limit_time is None or after.score <= after.limit_time, "a renewal passed a limit")
    rises = after.version > before.version
    promise(rises is not before.acknowledged, "the version must rise with the acknowledgment, and not with renewals")
    return truth._replace(granted_until=after.score, acknowledged=True, started=True)


def moved(truth: Truth, verb: Verb, token: bytes, before: Job, after: Job | None, recovered_at: int) -> Truth:
    """The store applied a change; `token` is whose settlement it is, `after` is None where the job has gone."""
    _stands_in_the_table(verb, before, after)
    if before.state in ENDED:
        promise(verb in _AFTER_THE_END, f"an ended job changed by {verb}")
    if verb in SETTLEMENTS:
        truth = _settled(truth, verb, token, before, after)
    if verb in TAKEN_BACK:
        _taken_back(truth, verb, recovered_at)
    if verb is Verb.EXPIRE:
        promise(not truth.started, "a job that was started has expired")
    if verb is Verb.CANCEL:
        truth = truth._replace(canceled=True)
    if verb is Verb.REPLAY:
        truth = Truth(settlements=truth.settlements)
    if after is None:
        return Truth(settlements=truth.settlements)
    promise(after.version > before.version, f"{verb} did not raise the version")
    promise(after.fence == before.fence, f"{verb} changed the fence")
    _counts(truth, verb, before, after)
    if before.state is not JobState.IN_PROGRESS:
        return truth
    if after.state is not JobState.IN_PROGRESS:
        return truth._replace(granted_until=0, acknowledged=False)
    # A cancel's grace cuts a lease short; its worker is told.
    return truth._replace(granted_until=min(truth.granted_until, after.limit_time or truth.granted_until))


def _stands_in_the_table(verb: Verb, before: Job, after: Job | None) -> None:
    if after is None:
        # Without retention a job is gone as soon as it has ended, by whatever verb.
        allowed = before.retention == 0 or TRANSITIONS[before.state].get(verb) == frozenset()
    else:
        allowed = after.state is before.state or after.state in TRANSITIONS[before.state].get(verb, ())
    goes_to = "gone" if after is None else after.state.name
    promise(allowed, f"{verb} took the job from {before.state.name} to {goes_to}, which the table does not have")


def _settled(truth: Truth, verb: Verb, token: bytes, before: Job, after: Job | None) -> Truth:
    promise(
        before.state is JobState.IN_PROGRESS and before.token == token,
        "a settlement was accepted under a token that is not the current one",
    )
    promise(all(each.token != token for each in truth.settlements), "one attempt was settled twice")
    was_cancel = after is not None and after.state is JobState.CANCELED
    return truth._replace(started=True, settlements=(*truth.settlements, Settlement(token, verb, was_cancel)))


def _taken_back(truth: Truth, verb: Verb, recovered_at: int) -> None:
    if verb is Verb.HAND_BACK:
        promise(not truth.acknowledged, "a worker that was heard has lost its job to a hand-back")
    if verb is Verb.REAP:
        promise(truth.granted_until <= NOW, "a living lease was reaped")
        pause = LEASE if truth.acknowledged else DELIVERY
        promise(recovered_at + pause <= NOW, "a lease was reaped before its worker could be heard after an outage")


def _counts(truth: Truth, verb: Verb, before: Job, after: Job) -> None:
    """Each attempt counts once, by what became of it; what was never acknowledged counts nothing."""
    if verb is Verb.REPLAY:
        promise(after.retry_count == after.interruption_count == 0, "a replay has no fresh budgets")
        promise(len(after.attempts) == len(before.attempts), "a replay has forgotten an attempt")
        return
    spent = (after.retry_count - before.retry_count, after.interruption_count - before.interruption_count)
    ended_attempts = len(after.attempts) - len(before.attempts)
    counted = after.attempt - before.attempt
    if verb in TAKEN_BACK and not truth.acknowledged:
        promise((*spent, ended_attempts, counted) == (0, 0, 0, -1), "a delivery that nobody acknowledged was counted")
    elif before.state is JobState.IN_PROGRESS is not after.state:
        promise((ended_attempts, counted) == (1, 0), "an attempt that was started was not counted")
    else:
        promise((*spent, ended_attempts, counted) == (0, 0, 0, 0), f"{verb} was counted as an attempt")
    # Which of the two is not promised: a reap that is under way for a whole renewed lease may find that by then the
    # other deadline has passed.
    promise(min(spent) >= 0 and sum(spent) <= 1, "one attempt was charged to both budgets, or given back")
    if verb in TAKEN_BACK and truth.acknowledged and after.state is not JobState.CANCELED:
        promise(sum(spent) == 1 or after.state is JobState.FAILED, "a job may be interrupted for ever")
    promise(after.retry_count <= after.retry.max_retries, "more retries than the policy allows")
    if after.state is not JobState.FAILED:
        promise(after.interruption_count <= after.retry.max_interruptions, "more interruptions than the policy allows")


def answered(truth: Truth, token: bytes, verb: Verb, answer: Settled | None) -> None:
    """A worker was told what became of its settlement; None is a plain OK."""
    real = next((each for each in truth.settlements if each.token == token), None)
    alike = real is not None and (real.verb is verb or (real.was_cancel and verb is not Verb.COMPLETE))
    if answer is None or answer is Settled.ALIKE:
        promise(alike, f"the worker of a {verb} was told OK, and it never happened")
    elif answer is Settled.OTHERWISE:
        otherwise = real is not None and not alike
        promise(otherwise, f"the worker of a {verb} was told that it settled otherwise, and did not")
    else:
        promise(real is None, f"the worker of a {verb} was told LEASE_LOST, and it had settled")


def stands(truth: Truth, job: Job, accounts: Accounts) -> None:
    """What must hold of a row between any two changes."""
    is_leased = job.state is JobState.IN_PROGRESS
    held = tuple(is_leased and job.worker_id == worker for worker in WORKERS)
    promise(accounts == held, "the credit that a worker has used is not what it holds")
    promise(truth.canceled or not job.cancel_requested, "a job is being canceled that nobody asked to cancel")
    if truth.canceled:
        promise(job.state in _HEEDED, f"a cancel request was lost: the job is {job.state.name}")
        promise(not is_leased or job.cancel_requested, "the worker is not told of a cancel")
        promise(not is_leased or job.limit_time is not None, "a cancel has no grace")
    outlives = is_leased and job.score > max(truth.granted_until, NOW)
    promise(not outlives, "a lease lives on although its holder was not heard")
    if job.state in WAITING:
        promise(job.token is None, "a job that nobody has has a token")


def renamed(truth: Truth, names: Mapping[bytes, bytes]) -> Truth:
    """The truth with its tokens renamed, and without what nobody can ask about any more."""
    kept = sorted(each._replace(token=names[each.token]) for each in truth.settlements if each.token in names)
    return truth._replace(settlements=tuple(kept))
