"""A store of one row: what `Move`, `domain.guard` and `store.base` say of claim, renew, promote and move, on a value.

`Rules` is where the search weakens something. Everything else is the project's own policy and judge.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Final

from tests.domain import promises
from tests.domain.life import BOOM, DELIVERY, NOW, applied, claimed, promoted
from tests.domain.likeness import Row, row_of
from tests.domain.promises import WORKERS, Accounts

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Guard, Outcome, judge
from jobwire_server.domain.job import SECOND, Job, JobState, Verb
from jobwire_server.domain.move import JobChanges, Move

GRACE: Final = DELIVERY
NEW: Final = b"\0"
"""The token that a claim gives, until it is numbered: lower than any other, for it is the newest."""


class Rules:
    """How it is done. A weaker one replaces a method or a flag."""

    looks_up_first = False
    """Whether a token has settled before is asked before the guard is judged, instead of after it has failed."""
    decides_repeats_anew = False
    """A Move that was applied, comes again, and is STALE by then is decided anew, instead of staying unknown."""

    def sent(self, move: Move) -> Move:
        """The decision as it goes to the store."""
        return move

    def judge(self, move: Move, job: Job | None, *, recovered_at: int) -> Outcome:
        return judge(move.guard, job, operation=move.operation, now=NOW, recovered_at=recovered_at)

    def may_renew(self, job: Job, token: bytes) -> bool:
        return job.state is JobState.IN_PROGRESS and job.token == token

    def has_credit(self, held: int, max_in_flight: int) -> bool:
        return held < max_in_flight


def decision(job: Job, verb: Verb, token: bytes, detail: str) -> Move | None:
    """What the policy makes of the job as it was read; None where there is nothing to do. Raises where it refuses."""
    match verb:
        case Verb.COMPLETE:
            return policy.complete(job.id, token, None).as_move()
        case Verb.FAIL:
            is_permanent = detail == "permanent"
            return policy.fail(job, token, BOOM, permanent=is_permanent, retry_delay=None, now=NOW, random=0.5)
        case Verb.RELEASE:
            return policy.release(job, token, delay=0, now=NOW, random=0.5)
        case Verb.HAND_BACK:
            return policy.hand_back(job, token, now=NOW)
        case Verb.REAP:
            return policy.reap(job, now=NOW, random=0.5)
        case Verb.RECOVER:
            return policy.recover(job, now=NOW, random=0.5)
        case Verb.EXPIRE:
            return policy.expire(job) if job.is_expired(NOW) else None  # only the reader knows the time
        case Verb.CANCEL:
            return policy.cancel(job, reason="", grace=GRACE, etag=None, now=NOW)
        case Verb.EDIT:
            changes: JobChanges = {"schedule_time": NOW + SECOND if detail == "later" else None} if detail else {}
            move = policy.edit(job, changes, payload=False, etag=None, now=NOW)
            return None if detail and move.to is job.state else move  # it waits there already
        case Verb.REPLAY:
            return policy.replay(job, etag=None)
        case Verb.DELETE:
            deletion = policy.delete(job, force=detail == "force", etag=None)
            return Move(
                job_id=job.id,
                verb=verb,
                guard=Guard(version=deletion.version, create_time=deletion.create_time),
                to=job.state,
            )
        case Verb.CLAIM | Verb.PROMOTE | Verb.PURGE:
            raise AssertionError(f"{verb} is no decision: the store finds and changes in one step")


@cache
def leased(row: Row, worker: int, is_acknowledged: bool) -> Row:
    """The row after a worker's claim, which counts as acknowledged where there is no delivery timeout."""
    job = claimed(row.job, NEW, NOW, acknowledged=is_acknowledged)._replace(worker_id=WORKERS[worker])
    truth = promises.claimed(row.truth, row.job, job)
    return row_of(job, truth, (worker == 0 or row.accounts[0], worker == 1 or row.accounts[1]))


@cache
def due(row: Row) -> Row:
    """The row after its promotion."""
    return row_of(promoted(row.job, NOW), row.truth, row.accounts)


def beaten(job: Job) -> Job:
    """The job after a renewal."""
    changes: dict[str, Any] = {}
    limit = job.limit_time
    if not job.acknowledged:
        changes = {"acknowledged": True, "return_count": 0, "version": job.version + 1}
        changes["start_time"] = job.claim_time if job.start_time is None else job.start_time
        if job.execution_timeout is not None:
            limit = min(limit or NOW + job.execution_timeout, NOW + job.execution_timeout)
    end = NOW + job.lease_duration if limit is None else min(NOW + job.lease_duration, limit)
    return job._replace(**changes, limit_time=limit, lease_expire_time=end, score=end)


def written(row: Row, move: Move) -> tuple[Job | None, Accounts]:
    """The job after a Move that its guard has let pass (None where it has gone), and on whose account it stands."""
    before = row.job
    after = None if move.verb is Verb.DELETE else applied(before, replace(move, guard=Guard()), NOW)
    if after is not None and after.state.is_ended and not before.state.is_ended and after.score <= NOW:
        after = None  # no retention
    if before.state is not JobState.IN_PROGRESS or (after is not None and after.state is JobState.IN_PROGRESS):
        return after, row.accounts
    # The credit goes back to whoever had the job; after the Move the row may name nobody any more.
    a, b = row.accounts
    return after, (a and before.worker_id != "A", b and before.worker_id != "B")
