"""The verb `move`: judges the guard and applies the Move as `domain.move.Move` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jobwire_server.domain.guard import Outcome, judge
from jobwire_server.domain.job import DEFAULT_RETENTION, Job, JobState, Verb
from jobwire_server.domain.move import Move
from jobwire_server.store.base import Moved
from jobwire_server.store.sqlite import codec, rows
from jobwire_server.store.sqlite.codec import Fields
from jobwire_server.store.sqlite.transaction import Transaction

_TAKEN_AWAY: Final = frozenset({Verb.REAP, Verb.RECOVER, Verb.HAND_BACK, Verb.CANCEL})
"""Verbs that end a lease without its worker, which therefore has to be told."""

_BY_WORKER: Final = frozenset({Verb.COMPLETE, Verb.FAIL, Verb.RELEASE})

_RETURNING: Final = frozenset({Verb.REAP, Verb.RECOVER, Verb.HAND_BACK})


def move(transaction: Transaction, moves: Sequence[Move]) -> list[Moved]:
    return [_move(transaction, each) for each in moves]


def _move(transaction: Transaction, move: Move) -> Moved:
    stored = rows.read(transaction, move.job_id)
    if stored is None:
        return Moved(Outcome.GONE, None)
    number, fields = stored
    job = codec.job_of(fields)
    now = transaction.now
    outcome = judge(move.guard, job, operation=move.operation, now=now, recovered_at=transaction.recovered_at)
    if outcome is not Outcome.OK:
        return Moved(outcome, job)
    if move.operation and job.last_operation == move.operation:
        return Moved(Outcome.OK, job)  # applied before
    changes = _changes(transaction, fields, move)
    transaction.counted(job.queue, job.state, move.to)
    if job.state is JobState.IN_PROGRESS:
        _tell(transaction, job, move, changes)
    if move.to.is_ended and not job.state.is_ended and changes["score"] <= changes["finish_time"]:
        transaction.counted(job.queue, move.to, None)
        rows.remove(transaction, number)
        return Moved(Outcome.OK, None)
    return Moved(Outcome.OK, rows.write(transaction, stored, changes))


def _changes(transaction: Transaction, before: Fields, move: Move) -> Fields:
    """Every field that the Move writes: its own, and what only the store knows."""
    now, to = transaction.now, move.to
    changes: Fields = {
        **move.changes,
        "state": to,
        "update_time": now,
        "version": before["version"] + 1,
        # The mere request to cancel a running job is no edit: repeating it with its etag stays safe.
        "revision": before["revision"] + (move.verb is not Verb.CANCEL or to is not JobState.IN_PROGRESS),
        "last_operation": move.operation,
    }
    after = {**before, **changes}
    if move.outcome is not None:
        changes["outcome"] = move.outcome
        changes["end_time"] = now
        if after["start_time"] is None:
            changes["start_time"] = after["claim_time"]
    if to is JobState.QUEUED:
        changes["queue_time"], changes["score"] = transaction.enter(
            after["queue"], queue_time=after["queue_time"], priority=after["priority"]
        )
    elif to is JobState.SCHEDULED:
        changes["score"] = after["schedule_time"]
    elif to is JobState.IN_PROGRESS:
        changes["score"] = deadline(after["lease_expire_time"], after["limit_time"])
    else:
        finish_time = after["finish_time"] if before["state"].is_ended else now
        changes["finish_time"] = finish_time
        changes["score"] = finish_time + _retention(transaction, after)
    if before["state"] is JobState.IN_PROGRESS is not to:
        changes["lease_expire_time"] = None
        changes["acknowledged"] = False
    return changes


def deadline(lease_expire_time: int, limit_time: int | None) -> int:
    """When a lease ends: the score of a job IN_PROGRESS."""
    return lease_expire_time if limit_time is None else min(lease_expire_time, limit_time)


def _retention(transaction: Transaction, after: Fields) -> int:
    retention: int | None = after["retention"]
    if retention is None:
        retention = transaction.queue(after["queue"]).settings.retention
    return DEFAULT_RETENTION[after["state"]] if retention is None else retention


def _tell(transaction: Transaction, job: Job, move: Move, changes: Fields) -> None:
    """What becomes of the worker that has the job: its credit, its account, and what it is told."""
    if move.to is JobState.IN_PROGRESS:
        if move.verb is Verb.CANCEL:
            reason = changes.get("cancel_reason", job.cancel_reason)
            transaction.tell_cancel(job.worker_id, job.id, job.fence, reason)
        return
    transaction.freed(job.worker_id)
    if move.verb in _BY_WORKER:
        transaction.acknowledged(job.worker_id)
    elif move.verb in _RETURNING and not job.acknowledged and job.claim_time is not None:
        transaction.returned(job.worker_id, claim_time=job.claim_time, ran_out=move.verb is Verb.REAP)
    if move.verb in _TAKEN_AWAY:
        transaction.tell_lost(job.worker_id, job.id, job.fence)
