"""Rows and Moves with everything taken out that no promise depends on, so that worlds with the same future become one
and a search through all of them ends.

- Time stands still at NOW. When it passes, every time moves into the past instead, and past is past.
- Versions only rise, so the version in a guard is the row's own (FRESH) or never will be again (OLD).
- Of all operations only the last one applied matters: it is LAST, and any other OTHER.
- Tokens are numbered by age, the newest first, and forgotten once nobody can ask about them.
- Numbers of attempts, fences, errors and results are gone: `promises` looks at them while a change happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from tests.domain import promises
from tests.domain.life import DELIVERY, LEASE, NOW
from tests.domain.promises import Accounts, Truth

from jobwire_server.domain.guard import Guard
from jobwire_server.domain.job import Attempt, AttemptOutcome, Job, JobState
from jobwire_server.domain.move import Move

TICK: Final = LEASE // 2
"""How much time passes at a time: a delivery runs out within one, a lease with the second."""

OLD: Final = 0
FRESH: Final = 1
LAST: Final = b"last"
OTHER: Final = b"other"
ENDLESS: Final = 1_000_000
"""A budget that never runs out: what was spent of it does not matter."""

Names = tuple[tuple[bytes, bytes], ...]
"""Token → its new name, for each that anybody could still ask about."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """The row of the store, and the truth about it. One object for each different one: comparing two costs nothing."""

    job: Job
    truth: Truth
    accounts: Accounts


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A Move on its way to the store, decided from the row as it was read. One object for each different one."""

    move: Move
    token: bytes
    """Whose settlement it is; empty where it is not a worker's."""
    detail: str
    """Which flavour of its verb was asked for, should it be decided anew."""
    is_repeat: bool
    """It was applied before, and whoever sent it never heard so."""
    looked_up: str
    """What was known of the token before it was sent; empty unless a weakened rule looks so early."""
    tokens: frozenset[bytes]
    """Those that it is about."""
    number: int


_rows: dict[tuple[Job, Truth, Accounts], Row] = {}
_sent: dict[tuple[object, ...], Sent] = {}


def row_of(job: Job, truth: Truth, accounts: Accounts) -> Row:
    """The one Row of all that are like this one, in which every promise that a row can break holds."""
    key = (alike(job), truth, accounts)
    row = _rows.get(key)
    if row is None:
        promises.stands(truth, job, accounts)
        row = _rows[key] = Row(*key)
    return row


def sent_of(move: Move, token: bytes, detail: str, *, is_repeat: bool = False, looked_up: str = "") -> Sent:
    """The one Sent of all that are like this one."""
    move = replace(move, changes=_alike_changes(move.changes))
    changes = tuple(sorted(move.changes.items()))
    key = (move.verb, move.guard, move.to, move.outcome, changes, move.operation, token, detail, is_repeat, looked_up)
    sent = _sent.get(key)
    if sent is None:
        tokens = frozenset(filter(None, (token, move.guard.token)))
        sent = _sent[key] = Sent(move, token, detail, is_repeat, looked_up, tokens, len(_sent))
    return sent


def in_order(sent: list[Sent]) -> tuple[Sent, ...]:
    """The one order of what is under way: nothing depends on it."""
    if len(sent) > 1:
        sent.sort(key=lambda each: each.number)
    return tuple(sent)


def _past(time: int) -> int:
    return max(time, NOW)


_NO_COUNTS: Final = {"retry_count": 0, "interruption_count": 0, "release_count": 0, "return_count": 0}
_NOTHING_MATTERS: Final[Mapping[str, Any]] = {
    "version": FRESH,
    "revision": FRESH,
    "last_operation": LAST,
    "update_time": NOW,
    "queue_time": NOW,
    "finish_time": None,
    "end_time": None,
    "fence": 0,
    "attempt": 0,
    "claim_time": None,
    "lease_expire_time": None,
    "limit_time": None,
    "schedule_time": None,
    "worker_id": "",
    "score": 0,
    "result": None,
    "error": None,
    "cancel_reason": "",
}


def alike(job: Job) -> Job:
    """The job, with one value in each field wherever its value does not matter."""
    fields = {
        **_NOTHING_MATTERS,
        "start_time": None if job.start_time is None else NOW,
        "history": tuple(attempt for attempt in _alike_attempts(job.history) if attempt.token),
    }
    if job.state is JobState.SCHEDULED:
        fields |= {"schedule_time": _past(job.score), "score": _past(job.score)}
    if job.state is JobState.IN_PROGRESS:
        fields |= _lease(job) | {"attempt": 1, "worker_id": job.worker_id}
    if job.state.is_ended:
        fields |= _end(job)
    if job.retry.max_retries == ENDLESS:
        fields |= _NO_COUNTS
    if job.expire_time is not None:
        is_over = job.start_time is not None or job.state.is_ended
        fields["expire_time"] = None if is_over else _past(job.expire_time)
    return job._replace(**fields)


def _lease(job: Job) -> dict[str, Any]:
    assert job.lease_expire_time is not None
    end, limit = _past(job.lease_expire_time), job.limit_time
    if limit is not None:
        if job.lease_expire_time < limit <= NOW:
            end = NOW - 1  # it ran out before its limit did, and that decides what it costs
        limit = _past(limit)
    claim_time = NOW if job.acknowledged else end - DELIVERY
    score = end if limit is None else min(end, limit)
    return {"lease_expire_time": end, "limit_time": limit, "claim_time": claim_time, "score": score}


def _end(job: Job) -> dict[str, Any]:
    purge = _past(job.score)
    finish = purge - (job.retention or 0)
    ended: dict[str, Any] = {**_NO_COUNTS, "start_time": None, "score": purge, "finish_time": finish}
    if job.outcome is None or job.token is None:
        return {**ended, "outcome": None, "token": None}
    return {**ended, "attempt": 1, "claim_time": NOW, "end_time": NOW}


def _alike_attempts(history: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    return tuple(_attempt(attempt.outcome, attempt.token) for attempt in history)


@cache
def _attempt(outcome: AttemptOutcome, token: bytes) -> Attempt:
    return Attempt(0, "", NOW, NOW, outcome, token)


def _alike_changes(changes: Mapping[str, Any]) -> Any:
    kept = {name: value for name, value in changes.items() if name not in ("result", "error", "cancel_reason")}
    if "history" in kept:
        kept["history"] = _alike_attempts(kept["history"])
    for name in ("schedule_time", "limit_time"):
        if kept.get(name) is not None:
            kept[name] = _past(kept[name])
    if kept.get("start_time") is not None:
        kept["start_time"] = NOW
    return kept


# --- what time, and what others do, make of them ----------------------------------------------------------------


@cache
def aged(row: Row) -> Row:
    """The row a TICK later."""
    job, truth = row.job, row.truth
    times = {name: getattr(job, name) for name in ("schedule_time", "lease_expire_time", "limit_time", "expire_time")}
    earlier = {name: time - TICK for name, time in times.items() if time is not None}
    if truth.granted_until:
        truth = truth._replace(granted_until=_past(truth.granted_until - TICK))
    return row_of(job._replace(score=job.score - TICK, **earlier), truth, row.accounts)


@cache
def sent_aged(sent: Sent) -> Sent:
    """The Move, a TICK later on its way."""
    changes: Any = dict(sent.move.changes)
    for name in ("schedule_time", "limit_time"):
        if changes.get(name) is not None:
            changes[name] -= TICK
    return _remade(sent, replace(sent.move, changes=changes))


@cache
def overtaken(sent: Sent, by_operation: bool) -> Sent:
    """The Move after the row has got another version, perhaps by another operation: with a version in its guard it can
    never be applied any more, so what it would have written does not matter."""
    move = sent.move
    if move.guard.version is not None:
        guard = replace(move.guard, version=OLD)
        move = replace(move, guard=guard, to=JobState.FAILED, outcome=None, changes={})
    if by_operation:
        move = replace(move, operation=OTHER)
    return _remade(sent, move)


@cache
def repeated(sent: Sent) -> Sent:
    """The Move that was applied a moment ago, as it is sent again."""
    again = overtaken(sent, False)
    return _remade(again, replace(again.move, operation=LAST), is_repeat=True)


@cache
def renamed(row: Row, names: Names) -> Row:
    """The row with its tokens renamed, and those without a name forgotten."""
    known, job = dict(names), row.job
    token = None if job.token is None else known.get(job.token)
    history = tuple(replace(each, token=known[each.token]) for each in job.history if each.token in known)
    truth = promises.renamed(row.truth, known)
    return row_of(job._replace(token=token, history=history), truth, row.accounts)


@cache
def sent_renamed(sent: Sent, names: Names) -> Sent:
    """The Move with its tokens renamed, and those without a name forgotten."""
    known, move = dict(names), sent.move
    changes: Any = dict(move.changes)
    if "history" in changes:
        # The attempt that it ends has no token where its worker did not settle it, and counts all the same.
        changes["history"] = tuple(
            replace(each, token=known.get(each.token, b""))
            for each in changes["history"]
            if not each.token or each.token in known
        )
    guard = replace(move.guard, token=known[move.guard.token]) if move.guard.token else move.guard
    token = sent.token and known[sent.token]
    renamed = replace(move, guard=guard, changes=changes)
    return sent_of(renamed, token, sent.detail, is_repeat=sent.is_repeat, looked_up=sent.looked_up)


@cache
def handed_over(row: Row) -> Row:
    """The row with worker A in the place of B, and B in that of A."""
    other = {"A": "B", "B": "A", "": ""}[row.job.worker_id]
    return row_of(row.job._replace(worker_id=other), row.truth, (row.accounts[1], row.accounts[0]))


@cache
def can_hold(guard: Guard, row: Row | None) -> bool:
    """Whether this guard could let a Move pass now or later: neither a token nor a version ever comes back."""
    if row is None or guard.version == OLD:
        return False
    return guard.token is None or (row.job.state is JobState.IN_PROGRESS and row.job.token == guard.token)


def _remade(sent: Sent, move: Move, *, is_repeat: bool = False) -> Sent:
    is_repeat = is_repeat or sent.is_repeat
    return sent_of(move, sent.token, sent.detail, is_repeat=is_repeat, looked_up=sent.looked_up)
