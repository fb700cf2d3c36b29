"""The verbs about queues: `put_queue` and `queues`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from jobwire_server.domain import activity
from jobwire_server.domain.activity import LONG, LONGEST, RINGS, SHORT, Marks, Tally
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.domain.queue import QueueChanges
from jobwire_server.domain.webhook import RESERVED
from jobwire_server.store.base import LOOK_PAST, QueuePut, QueueRecord, Queues
from jobwire_server.store.sqlite.transaction import Transaction

_NAMES: Final = f"SELECT name FROM queue WHERE name > ? AND name NOT GLOB '{RESERVED}*' ORDER BY name LIMIT ?"
_COUNTS: Final = "SELECT state, n FROM queue_count WHERE queue = ? AND n != 0"

_SINCE: Final = "SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'create_time'"
_MARKS: Final = f"""
SELECT step, number, {", ".join(Tally._fields)} FROM mark
WHERE queue = ?1 AND (step = ?2 AND number * ?2 >= ?3 OR step = ?4 AND number * ?4 >= ?5)
"""

# Job.is_expired, as SQL; NULL where it has no expire_time.
_HEAD: Final = """
SELECT queue_time, expire_time <= ? AND start_time IS NULL FROM job INDEXED BY job_by_state
WHERE queue = ? AND state = 'queued' ORDER BY score, id LIMIT ?
"""


def put(transaction: Transaction, name: str, changes: QueueChanges, *, revision: int | None, create: bool) -> QueuePut:
    row = transaction.queue(name)
    if not row.exists and not create:
        return QueuePut(Outcome.GONE, transaction.now, None)
    if revision is not None and revision != row.settings.revision:
        outcome = Outcome.STALE if row.exists else Outcome.GONE
        return QueuePut(outcome, transaction.now, _record(transaction, name) if row.exists else None)
    claimable = transaction.claimable(name)
    row = transaction.add_queue(name)
    changed = replace(row.settings, **changes)
    if changed != row.settings:
        row.settings = replace(changed, revision=changed.revision + 1, update_time=transaction.now)
        row.changed = True
    transaction.tell_claimable(name, transaction.claimable(name) - claimable)
    return QueuePut(Outcome.OK, transaction.now, _record(transaction, name))


def queues(
    transaction: Transaction, names: Sequence[str], after: str, limit: int, *, lately: bool, minutes: bool
) -> Queues:
    transaction.flush()
    if names:
        found = [name for name in sorted(set(names)) if transaction.queue(name).exists]
    else:
        found = [name for (name,) in transaction.execute(_NAMES, (after, limit))]
    records = [_record(transaction, name, lately=lately, minutes=minutes) for name in found]
    return Queues(transaction.now, transaction.execute(_SINCE).get, records)


def _record(transaction: Transaction, name: str, *, lately: bool = False, minutes: bool = False) -> QueueRecord:
    transaction.flush()  # so that the counters hold what this call and those before it have done
    counts = {JobState(state): n for state, n in transaction.execute(_COUNTS, (name,))}
    head = transaction.execute(_HEAD, (transaction.now, name, LOOK_PAST + 1))
    head_queue_time = next((queue_time for queue_time, is_expired in head if not is_expired), None)
    row = transaction.queue(name)
    record = QueueRecord(row.settings, counts, head_queue_time, row.tally)
    if not lately and not minutes:
        return record
    now, tally, marks = transaction.now, row.tally, _marks(transaction, name, of_the_hour=minutes)
    return replace(
        record,
        lately=activity.lately(now=now, tally=tally, marks=marks) if lately else None,
        minutes=activity.by_minute(now=now, tally=tally, marks=marks) if minutes else None,
    )


def _marks(transaction: Transaction, name: str, *, of_the_hour: bool) -> Marks:
    short = transaction.now - LONGEST[SHORT]
    long = transaction.now - (LONG.step * LONG.slots if of_the_hour else LONGEST[LONG])
    found = transaction.execute(_MARKS, (name, SHORT.step, short, LONG.step, long))
    return {(_RINGS[step], number): Tally(*rest) for step, number, *rest in found}


_RINGS: Final = {ring.step: ring for ring in RINGS}
