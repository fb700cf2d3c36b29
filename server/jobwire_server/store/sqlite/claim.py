"""The verb `claim`: the one way out of a queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobwire_server.domain.job import MINUTE, Job, JobState
from jobwire_server.store.base import Claimed, ClaimOutcome, ClaimRequest, Claims
from jobwire_server.store.sqlite import codec, rows
from jobwire_server.store.sqlite.codec import Fields
from jobwire_server.store.sqlite.rows import Stored
from jobwire_server.store.sqlite.transaction import QueueRow, Transaction

LOOK_PAST: Final = 10
"""Expired jobs at the head that one call looks past; beyond them the sweeper has to come first."""

MAX_RETURNED: Final = 20
"""At this many returned deliveries in a row a worker gets nothing more for REFUSED_FOR."""

REFUSED_FOR: Final = MINUTE

_HEAD: Final = "WHERE job.queue = ? AND job.state = 'queued' ORDER BY job.score, job.id LIMIT ?"


@dataclass(slots=True)
class _Grant:
    """What one request may have, and what it gets."""

    request: ClaimRequest
    outcome: ClaimOutcome
    limit: int
    jobs: list[Job]


def claim(transaction: Transaction, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
    row = transaction.queue(queue)
    room = _room(transaction, row)
    grants: list[_Grant] = []
    for request in requests:
        outcome = _outcome(transaction, request)
        limit = 0
        if outcome is ClaimOutcome.OK:
            # Earlier requests of the same worker in this call hold what they were granted already.
            credit = request.max_in_flight - transaction.held(request.worker_id)
            limit = max(0, min(len(request.tokens), credit, room))
            room -= limit
            transaction.leased(request.worker_id, limit)
        grants.append(_Grant(request, outcome, limit, []))
    wanted = sum(grant.limit for grant in grants)
    head, expired = _head(transaction, queue, wanted) if wanted else ([], 0)
    _lease(transaction, head, grants)
    transaction.counted(queue, JobState.QUEUED, JobState.IN_PROGRESS, len(head))
    claimed = []
    for grant in grants:
        if grant.outcome is ClaimOutcome.OK:
            transaction.leased(grant.request.worker_id, len(grant.jobs) - grant.limit)
        held = transaction.held(grant.request.worker_id)
        claimed.append(Claimed(grant.outcome, grant.jobs, held))
    left = transaction.count(queue, JobState.QUEUED) - expired
    return Claims(transaction.now, claimed, max(0, min(left, _room(transaction, row))))


def _room(transaction: Transaction, row: QueueRow) -> int:
    """How many more of its jobs may be IN_PROGRESS."""
    if row.settings.paused:
        return 0
    waiting = transaction.count(row.settings.name, JobState.QUEUED)
    if row.settings.max_in_flight is None:
        return waiting
    return min(waiting, row.settings.max_in_flight - transaction.count(row.settings.name, JobState.IN_PROGRESS))


def _outcome(transaction: Transaction, request: ClaimRequest) -> ClaimOutcome:
    worker = transaction.worker(request.worker_id)
    if request.session < worker.session:
        return ClaimOutcome.SUPERSEDED
    if request.session > worker.session:
        worker.session = request.session
        worker.changed = True
    if worker.silent:
        return ClaimOutcome.SILENT
    if worker.returns >= MAX_RETURNED and transaction.now < worker.returned_at + REFUSED_FOR:
        return ClaimOutcome.NOT_ACKNOWLEDGING
    return ClaimOutcome.OK


def _head(transaction: Transaction, queue: str, wanted: int) -> tuple[list[Stored], int]:
    """Up to `wanted` jobs from the head that are not expired, and how many expired ones were seen."""
    found = _alive(transaction, queue, wanted)
    if len(found[0]) == wanted or not found[1]:
        return found
    transaction.expired_seen = True
    alive, expired = _alive(transaction, queue, wanted + LOOK_PAST)
    return alive[:wanted], expired


def _alive(transaction: Transaction, queue: str, limit: int) -> tuple[list[Stored], int]:
    found = rows.select(transaction, _HEAD, (queue, limit))
    now = transaction.now
    alive = [stored for stored in found if not _is_expired(stored[1], now)]
    return alive, len(found) - len(alive)


def _is_expired(fields: Fields, now: int) -> bool:
    """Job.is_expired, asked before there is a Job."""
    return fields["expire_time"] is not None and fields["expire_time"] <= now and fields["start_time"] is None


def _lease(transaction: Transaction, head: Sequence[Stored], grants: Sequence[_Grant]) -> None:
    """Hands the jobs to the requests in turn."""
    written = []
    changes: Fields = {}
    waiting = iter(head)
    for grant in grants:
        # The tokens first: zip takes from the second only when the first has one to give.
        for token, (number, fields) in zip(grant.request.tokens[: grant.limit], waiting, strict=False):
            changes = _leased(fields, grant.request, token, transaction.now)
            written.append((*changes.values(), number))
            grant.jobs.append(codec.job_of({**fields, **changes}))
    if written:
        transaction.executemany(rows.update(tuple(changes)), written)


def _leased(fields: Fields, request: ClaimRequest, token: bytes, now: int) -> Fields:
    acknowledged = request.delivery_timeout == 0
    limit_time: int | None = None
    end = now + request.delivery_timeout
    if acknowledged:
        end = now + request.lease_duration
        if fields["execution_timeout"] is not None:
            limit_time = now + fields["execution_timeout"]
            end = min(end, limit_time)
    return {
        "state": JobState.IN_PROGRESS,
        "score": end,
        "version": fields["version"] + 1,
        "revision": fields["revision"] + 1,
        "update_time": now,
        "attempt": fields["attempt"] + 1,
        "return_count": 0 if acknowledged else fields["return_count"],
        "start_time": now if acknowledged and fields["start_time"] is None else fields["start_time"],
        "token": token,
        "fence": max(fields["fence"] + 1, now),
        "worker_id": request.worker_id,
        "claim_time": now,
        "acknowledged": acknowledged,
        "lease_duration": request.lease_duration,
        "lease_expire_time": end,
        "limit_time": limit_time,
        "outcome": None,
        "end_time": None,
        "progress": None,
    }
