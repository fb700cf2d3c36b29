"""The verb `move`: judges the guard and applies the Move as `domain.move.Move` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobwire_server.domain.guard import Outcome, judge
from jobwire_server.domain.job import DEFAULT_RETENTION, Job, JobState, Verb
from jobwire_server.domain.move import AnyMove, Completion, Move
from jobwire_server.domain.webhook import wants_word
from jobwire_server.store.base import Moved, Standing
from jobwire_server.store.sqlite import rows
from jobwire_server.store.sqlite.complete import complete
from jobwire_server.store.sqlite.create import create
from jobwire_server.store.sqlite.rows import Stored
from jobwire_server.store.sqlite.transaction import Transaction

_TAKEN_AWAY: Final = frozenset({Verb.REAP, Verb.RECOVER, Verb.HAND_BACK, Verb.CANCEL})
"""Verbs that end a lease without its worker, which therefore has to be told."""

_BY_WORKER: Final = frozenset({Verb.COMPLETE, Verb.FAIL, Verb.RELEASE})

_RETURNING: Final = frozenset({Verb.REAP, Verb.RECOVER, Verb.HAND_BACK})


def move(transaction: Transaction, moves: Sequence[AnyMove], *, brief: bool = False) -> list[Moved]:
    answers: list[Moved] = []
    for round_ in rows.rounds(moves):
        completions = [move for move in round_ if isinstance(move, Completion)]
        done = complete(transaction, completions, brief=brief) if completions else {}
        others = [move for move in round_ if move.job_id not in done]
        if others:
            _move_all(transaction, others, done)
        answers += [done[move.job_id] for move in round_]
    return answers


def _move_all(transaction: Transaction, moves: Sequence[AnyMove], answers: dict[str, Moved]) -> None:
    stored = rows.read(transaction, [move.job_id for move in moves], whole=False)
    changed: list[tuple[Stored, Mapping[str, Any]]] = []
    for move in moves:
        answers[move.job_id] = _move(transaction, move.as_move(), stored.get(move.job_id), changed)
    rows.write(transaction, changed)


def _move(
    transaction: Transaction, move: Move, stored: Stored | None, changed: list[tuple[Stored, Mapping[str, Any]]]
) -> Moved:
    if stored is None:
        return Moved(Outcome.GONE)
    _, job = stored
    now = transaction.now
    outcome = judge(move.guard, job, operation=move.operation, now=now, recovered_at=transaction.recovered_at)
    if outcome is not Outcome.OK:
        return Moved(outcome, job=rows.read(transaction, [job.id], whole=True)[job.id][1])
    if move.operation and job.last_operation == move.operation:
        return Moved(Outcome.OK, Standing.of(job))  # applied before
    if wants_word(job, move.to):
        if move.word is None:
            return Moved(Outcome.STALE, job=rows.read(transaction, [job.id], whole=True)[job.id][1])
        create(transaction, [move.word])
    changes = _changes(transaction, job, move)
    transaction.counted(job.queue, job.state, move.to)
    if (cost := move.cost) is not None:
        transaction.happened(job.queue, cost)
    if move.to is JobState.COMPLETED and job.state is JobState.IN_PROGRESS and job.claim_time is not None:
        transaction.ran(job.queue, max(0, now - job.claim_time))
    if job.state is JobState.IN_PROGRESS:
        _tell(transaction, job, move)
    if move.to.is_ended and not job.state.is_ended and changes["score"] <= changes["finish_time"]:
        transaction.counted(job.queue, move.to, None)
        rows.remove(transaction, stored, ended=changes)
        return Moved(Outcome.OK)
    changed.append((stored, changes))
    return Moved(Outcome.OK, _standing(job, changes))


def _standing(job: Job, changes: Mapping[str, Any]) -> Standing:
    return Standing(
        job.id,
        job.queue,
        changes["state"],
        changes["score"],
        changes["version"],
        changes["revision"],
        changes.get("attempt", job.attempt),
        changes.get("retry_count", job.retry_count),
        job.create_time,
        changes["update_time"],
        changes.get("queue_time", job.queue_time),
        changes.get("finish_time", job.finish_time),
    )


def _changes(transaction: Transaction, job: Job, move: Move) -> dict[str, Any]:
    """Every field that the Move writes: its own, and what only the store knows."""
    now, to = transaction.now, move.to
    changes: dict[str, Any] = {
        **move.changes,
        "state": to,
        "update_time": now,
        "version": job.version + 1,
        # The mere request to cancel a running job is no edit: repeating it with its etag stays safe.
        "revision": job.revision + (move.verb is not Verb.CANCEL or to is not JobState.IN_PROGRESS),
        "last_operation": move.operation,
    }
    if move.outcome is not None:
        changes["outcome"] = move.outcome
        changes["end_time"] = now
        if changes.get("start_time", job.start_time) is None:
            changes["start_time"] = changes.get("claim_time", job.claim_time)
    if to is JobState.QUEUED:
        changes["queue_time"], changes["score"] = transaction.enter(
            job.queue,
            queue_time=changes.get("queue_time", job.queue_time),
            priority=changes.get("priority", job.priority),
        )
    elif to is JobState.SCHEDULED:
        changes["score"] = changes.get("schedule_time", job.schedule_time)
    elif to is JobState.IN_PROGRESS:
        assert job.lease_expire_time is not None, "every lease has an end"
        changes["score"] = deadline(job.lease_expire_time, changes.get("limit_time", job.limit_time))
    else:
        ended_at = changes.get("finish_time", job.finish_time) if job.state.is_ended else now
        finish_time = now if ended_at is None else ended_at
        changes["finish_time"] = finish_time
        changes["score"] = finish_time + _retention(transaction, job, changes)
    if job.state is JobState.IN_PROGRESS is not to:
        changes["lease_expire_time"] = None
        changes["acknowledged"] = False
    return changes


def deadline(lease_expire_time: int, limit_time: int | None) -> int:
    """When a lease ends: the score of a job IN_PROGRESS."""
    return lease_expire_time if limit_time is None else min(lease_expire_time, limit_time)


def _retention(transaction: Transaction, job: Job, changes: Mapping[str, Any]) -> int:
    retention: int | None = changes.get("retention", job.retention)
    if retention is None:
        retention = transaction.queue(job.queue).settings.retention
    return DEFAULT_RETENTION[changes["state"]] if retention is None else retention


def _tell(transaction: Transaction, job: Job, move: Move) -> None:
    """What becomes of the worker that has the job: its credit, its account, and what it is told."""
    if move.to is JobState.IN_PROGRESS:
        if move.verb is Verb.CANCEL:
            reason = move.changes.get("cancel_reason", job.cancel_reason)
            transaction.tell_cancel(job.worker_id, job.id, job.fence, reason)
        return
    transaction.freed(job.worker_id)
    if move.verb in _BY_WORKER:
        transaction.acknowledged(job.worker_id)
    elif move.verb in _RETURNING and not job.acknowledged and job.claim_time is not None:
        transaction.returned(job.worker_id, claim_time=job.claim_time, ran_out=move.verb is Verb.REAP)
    if move.verb in _TAKEN_AWAY:
        transaction.tell_lost(job.worker_id, job.id, job.fence)
