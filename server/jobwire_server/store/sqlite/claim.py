"""The verb `claim`: the one way out of a queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobwire_server.domain.activity import Event
from jobwire_server.domain.job import Job, JobState
from jobwire_server.domain.worker import Directive
from jobwire_server.store.base import (
    LOOK_PAST,
    MAX_RETURNED,
    REFUSED_FOR,
    Claimed,
    ClaimOutcome,
    ClaimRequest,
    Claims,
)
from jobwire_server.store.sqlite import bulk, rows
from jobwire_server.store.sqlite.rows import Stored
from jobwire_server.store.sqlite.transaction import Transaction

_HEAD: Final = "WHERE job.queue = ? AND job.state = 'queued' ORDER BY job.score, job.id LIMIT ?"

# ?1 is now. What is written is what `_lease` makes of the job for the answer.
_LEASE: Final = """
WITH given (number, token, ends, limit_time, acknowledged, lease_duration, worker_id) AS ({values})
UPDATE job SET
    state = 'in_progress', score = given.ends, version = version + 1, revision = revision + 1, update_time = ?1,
    attempt = attempt + 1, return_count = iif(given.acknowledged, 0, return_count),
    start_time = iif(given.acknowledged, coalesce(start_time, ?1), start_time), token = given.token,
    fence = max(fence + 1, ?1), worker_id = given.worker_id, claim_time = ?1, acknowledged = given.acknowledged,
    lease_duration = given.lease_duration, lease_expire_time = given.ends, limit_time = given.limit_time,
    outcome = NULL, end_time = NULL, progress = NULL
FROM given WHERE job.number = given.number
"""


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
    bulk.given(transaction.connection, _LEASE, [*_leases(head, grants, transaction.now)], transaction.now)
    transaction.counted(queue, JobState.QUEUED, JobState.IN_PROGRESS, len(head))
    transaction.happened(queue, Event.CLAIMED, len(head))
    transaction.tell_changed(job.id for grant in grants for job in grant.jobs)
    for grant in grants:
        if grant.outcome is ClaimOutcome.OK and len(grant.jobs) < grant.limit:
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
    if worker.directive is not Directive.NONE:
        return ClaimOutcome.QUIET
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


def _leases(head: Sequence[Stored], grants: Sequence[_Grant], now: int) -> Iterator[bulk.Row]:
    """Hands the jobs to the requests in turn, and answers what is written for each."""
    waiting = iter(head)
    for grant in grants:
        terms = _Terms(grant.request, now)
        # The tokens first: zip takes from the second only when the first has one to give.
        for token, (number, job) in zip(grant.request.tokens[: grant.limit], waiting, strict=False):
            leased = terms.lease(job, token)
            grant.jobs.append(leased)
            yield number, token, leased.score, leased.limit_time, *terms.shared


_AT: Final = {field: at for at, field in enumerate(Job._fields)}
_SCORE, _VERSION, _REVISION, _ATTEMPT, _TOKEN, _FENCE, _START_TIME, _LIMIT_TIME, _LEASE_END = (
    _AT[field]
    for field in (
        "score",
        "version",
        "revision",
        "attempt",
        "token",
        "fence",
        "start_time",
        "limit_time",
        "lease_expire_time",
    )
)


class _Terms:
    """What all leases of one request have in common."""

    def __init__(self, request: ClaimRequest, now: int) -> None:
        self._now = now
        self._is_acknowledged = request.delivery_timeout == 0
        self._ends = now + (request.lease_duration if self._is_acknowledged else request.delivery_timeout)
        self.shared: Final = (self._is_acknowledged, request.lease_duration, request.worker_id)
        said: dict[str, Any] = {
            "state": JobState.IN_PROGRESS,
            "update_time": now,
            "claim_time": now,
            "worker_id": request.worker_id,
            "acknowledged": self._is_acknowledged,
            "lease_duration": request.lease_duration,
            "limit_time": None,
            "outcome": None,
            "end_time": None,
            "progress": None,
        }
        if self._is_acknowledged:
            said["return_count"] = 0
        self._said = [(_AT[field], value) for field, value in said.items()]

    def lease(self, job: Job, token: bytes) -> Job:
        """The job as it is leased. By places in the tuple: `_replace` would take most of the time of a claim."""
        fields: list[Any] = [*job]
        for at, value in self._said:
            fields[at] = value
        ends = self._ends
        if self._is_acknowledged:
            if job.start_time is None:
                fields[_START_TIME] = self._now
            if job.execution_timeout is not None:
                fields[_LIMIT_TIME] = limit_time = self._now + job.execution_timeout
                ends = min(ends, limit_time)
        fields[_SCORE] = fields[_LEASE_END] = ends
        fields[_VERSION] += 1
        fields[_REVISION] += 1
        fields[_ATTEMPT] += 1
        fields[_TOKEN] = token
        fields[_FENCE] = max(job.fence + 1, self._now)
        return Job._make(fields)
