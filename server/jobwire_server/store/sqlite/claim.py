"""The verb `claim`: the one way out of a queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobwire_server.domain.job import Job, JobState
from jobwire_server.store.base import (
    LOOK_PAST,
    MAX_RETURNED,
    REFUSED_FOR,
    Claimed,
    ClaimOutcome,
    ClaimRequest,
    Claims,
)
from jobwire_server.store.sqlite import rows
from jobwire_server.store.sqlite.rows import Stored
from jobwire_server.store.sqlite.transaction import Transaction

_HEAD: Final = "WHERE job.queue = ? AND job.state = 'queued' ORDER BY job.score, job.id LIMIT ?"


@dataclass(slots=True)
class _Grant:
    """What one request may have, and what it gets."""

    request: ClaimRequest
    outcome: ClaimOutcome
    limit: int
    jobs: list[Job]


def claim(transaction: Transaction, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
    room = transaction.claimable(queue)
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
    rows.write(transaction, _leased(head, grants, transaction.now))
    transaction.counted(queue, JobState.QUEUED, JobState.IN_PROGRESS, len(head))
    for grant in grants:
        if grant.outcome is ClaimOutcome.OK:
            transaction.leased(grant.request.worker_id, len(grant.jobs) - grant.limit)
    claimed = [Claimed(grant.outcome, grant.jobs, transaction.held(grant.request.worker_id)) for grant in grants]
    left = transaction.count(queue, JobState.QUEUED) - expired
    return Claims(transaction.now, claimed, max(0, min(left, transaction.claimable(queue))))


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
    alive = [stored for stored in found if not stored[1].is_expired(transaction.now)]
    return alive, len(found) - len(alive)


def _leased(head: Sequence[Stored], grants: Sequence[_Grant], now: int) -> Iterable[tuple[Stored, dict[str, Any]]]:
    """Hands the jobs to the requests in turn."""
    waiting = iter(head)
    for grant in grants:
        # The tokens first: zip takes from the second only when the first has one to give.
        for token, stored in zip(grant.request.tokens[: grant.limit], waiting, strict=False):
            changes = _lease(stored[1], grant.request, token, now)
            grant.jobs.append(stored[1]._replace(**changes))
            yield stored, changes


def _lease(job: Job, request: ClaimRequest, token: bytes, now: int) -> dict[str, Any]:
    acknowledged = request.delivery_timeout == 0
    limit_time: int | None = None
    end = now + request.delivery_timeout
    if acknowledged:
        end = now + request.lease_duration
        if job.execution_timeout is not None:
            limit_time = now + job.execution_timeout
            end = min(end, limit_time)
    return {
        "state": JobState.IN_PROGRESS,
        "score": end,
        "version": job.version + 1,
        "revision": job.revision + 1,
        "update_time": now,
        "attempt": job.attempt + 1,
        "return_count": 0 if acknowledged else job.return_count,
        "start_time": now if acknowledged and job.start_time is None else job.start_time,
        "token": token,
        "fence": max(job.fence + 1, now),
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
