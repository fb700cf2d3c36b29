"""The verbs that look through many jobs: `find` and `count`. They seek to where they go on and never skip rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, NamedTuple

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import Job, JobState
from jobwire_server.domain.webhook import RESERVED
from jobwire_server.store.base import FOUND_BYTES, SCAN, Counts, Found
from jobwire_server.store.sqlite import rows
from jobwire_server.store.sqlite.codec import UNREADABLE
from jobwire_server.store.sqlite.transaction import Transaction

_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1
"""Before and behind every score and every time."""

_IN_STATE: Final = """
FROM job INDEXED BY job_by_state WHERE queue = ?1 AND state = ?2 AND (score, id) > (?3, ?4)
ORDER BY score, id
"""
_COLUMNS_IN_STATE: Final = "SELECT number, queue, state, score, id, type, create_time"

# Without its second condition the planner cannot know that the partial index holds them all.
_OF_USER: Final = """
FROM job INDEXED BY job_by_user WHERE user_id = ?1 AND user_id != '' AND create_time >= ?2
    AND (create_time, id) < (?3, ?4)
ORDER BY create_time DESC, id DESC
"""
_COLUMNS_OF_USER: Final = "SELECT number, queue, state, create_time, id, type, create_time"

_NAMES: Final = f"SELECT name FROM queue WHERE name >= ? AND name NOT GLOB '{RESERVED}*' ORDER BY name"

_COUNTS: Final = f"SELECT state, sum(n) FROM queue_count WHERE queue NOT GLOB '{RESERVED}*' GROUP BY state"
_COUNTS_OF_QUEUES: Final = """
SELECT state, sum(n) FROM queue_count WHERE queue IN (SELECT value FROM json_each(?)) GROUP BY state
"""


class _Look(NamedTuple):
    """A job that was looked at, or a state index that was empty."""

    number: int | None
    """None: the index was empty."""
    queue: str
    state: str
    score: int
    """As `Position` has it."""
    id: str
    type: str = ""
    create_time: int = 0


def find(transaction: Transaction, wanted: JobFilter, after: Position | None, limit: int) -> Found:
    wanted = replace(wanted, submission_matches=None)
    jobs: list[Job] = []
    last: _Look | None = None
    size = 0
    with closing(_listing(transaction, wanted, after)) as listing:
        for looked, look in enumerate(listing):
            is_full = len(jobs) == limit or size >= FOUND_BYTES
            # Only a job says that there is more; an empty index leaves it open.
            if looked == SCAN or (is_full and look.number is not None):
                return Found(transaction.now, jobs, _position(wanted, last) if last else after)
            last = look
            job = _matching(transaction, wanted, look)
            if job is not None:
                jobs.append(job)
                size += len(job.submission) + len(job.result or b"")
    return Found(transaction.now, jobs, None)


def count(transaction: Transaction, wanted: JobFilter, after: Position | None) -> Counts:
    if not wanted.needs_scan:
        return Counts(_counters(transaction, wanted), None)
    by_state: Counter[JobState] = Counter()
    last: _Look | None = None
    with closing(_listing(transaction, wanted, after)) as listing:
        for looked, look in enumerate(listing):
            if looked == SCAN:
                return Counts(dict(by_state), _position(wanted, last) if last else after)
            last = look
            if look.number is not None and _passes(wanted, look):
                by_state[JobState(look.state)] += 1
    return Counts(dict(by_state), None)


def _counters(transaction: Transaction, wanted: JobFilter) -> dict[JobState, int]:
    transaction.flush()
    if wanted.queues:
        found = transaction.execute(_COUNTS_OF_QUEUES, (json.dumps(sorted(wanted.queues)),))
    else:
        found = transaction.execute(_COUNTS)
    return {JobState(state): n for state, n in found if n and (not wanted.states or state in wanted.states)}


_Listing = Generator[_Look, None, None]
"""It reads as far as it is asked to, and keeps its place in the index until it is closed."""


def _listing(transaction: Transaction, wanted: JobFilter, after: Position | None) -> _Listing:
    """All there is to look at behind `after`, in order."""
    return _of_user(transaction, wanted, after) if wanted.user_id else _of_queues(transaction, wanted, after)


def _of_user(transaction: Transaction, wanted: JobFilter, after: Position | None) -> _Listing:
    """The user's jobs, newest first. No id is smaller than an empty one, so that (time, "") comes behind that time."""
    places = [(_LAST, "")]
    if wanted.created_before is not None:
        places.append((wanted.created_before, ""))
    if after is not None:
        places.append((after.score, after.id) if after.id else (after.score + 1, ""))
    since = _FIRST if wanted.created_from is None else wanted.created_from
    yield from _stretch(transaction, _COLUMNS_OF_USER, _OF_USER, (wanted.user_id, since), min(places))


def _of_queues(transaction: Transaction, wanted: JobFilter, after: Position | None) -> _Listing:
    """The jobs of one state index after the other."""
    transaction.flush()
    states = [state for state in JobState if not wanted.states or state in wanted.states]
    for queue in _names(transaction, wanted, "" if after is None else after.queue):
        for state in states:
            place = (_FIRST, "")
            if after is not None and queue == after.queue:
                if _ORDER[state] < _ORDER[after.state]:
                    continue
                if state is after.state:
                    place = (after.score, after.id)
            if transaction.count(queue, state):
                yield from _stretch(transaction, _COLUMNS_IN_STATE, _IN_STATE, (queue, state), place)
            else:
                yield _Look(None, queue, state, _LAST, "")


_ORDER: Final = {state: number for number, state in enumerate(JobState)}


def _names(transaction: Transaction, wanted: JobFilter, first: str) -> Iterator[str]:
    """The queues from that name on, in the order of their bytes; of those named, which need not exist, or of all."""
    if wanted.queues:
        yield from sorted(name for name in wanted.queues if name >= first)
    else:
        for (name,) in transaction.execute(_NAMES, (first,)):
            yield name


def _stretch(
    transaction: Transaction, columns: str, of: str, bindings: Sequence[Any], place: tuple[int, str]
) -> _Listing:
    """What one index holds behind that place. A row that cannot be read is set aside, where the connection can write;
    else it raises one of UNREADABLE."""
    while True:
        try:
            for row in transaction.execute(columns + of, (*bindings, *place)):
                look = _Look._make(row)
                place = look.score, look.id
                yield look
        except UNREADABLE:
            if transaction.connection.readonly("main"):
                raise
            number = transaction.execute(f"SELECT number {of} LIMIT 1", (*bindings, *place)).get
            _load(transaction, number)
        else:
            return


def _load(transaction: Transaction, number: int) -> Job:
    """The whole job. One that cannot be read is set aside first, and answered as it then is."""
    ((_, job),) = rows.select(transaction, "WHERE job.number = ?", (number,))
    return job


def _matching(transaction: Transaction, wanted: JobFilter, look: _Look) -> Job | None:
    """The whole job if it matches; one that had to be set aside now stands elsewhere, or matches no more."""
    if look.number is None or not _passes(wanted, look):
        return None
    job = _load(transaction, look.number)
    return job if wanted.position_of(job) == _position(wanted, look) and wanted.matches(job) else None


def _passes(wanted: JobFilter, look: _Look) -> bool:
    """JobFilter.matches, as far as the listing has not seen to it, asked before there is a Job."""
    return (
        wanted.names(look.queue)
        and (not wanted.states or look.state in wanted.states)
        and (not wanted.types or look.type in wanted.types)
        and (wanted.created_from is None or look.create_time >= wanted.created_from)
        and (wanted.created_before is None or look.create_time < wanted.created_before)
    )


def _position(wanted: JobFilter, look: _Look) -> Position:
    """JobFilter.position_of, for a row."""
    if wanted.user_id:
        return Position("", JobState.SCHEDULED, look.score, look.id)
    return Position(look.queue, JobState(look.state), look.score, look.id)
