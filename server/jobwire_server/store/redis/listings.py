"""The verbs that look through many jobs, as calls: `find` and `count`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import JobState
from jobwire_server.store.base import SCAN, Counts, Found
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis import mending
from jobwire_server.store.redis.scripts import Answer, Call, Jobs, script


def needs_names(wanted: JobFilter) -> bool:
    """Its listing goes through all queues, whose names the caller has to bring."""
    return not (wanted.queues or wanted.user_id)


def find(wanted: JobFilter, names: Sequence[str], after: Position | None, limit: int) -> Call[Found]:
    """`names`: all queues in order, where it needs them."""
    listing = _listing(wanted, names, after)

    def read(answer: Answer) -> Found:
        jobs, end = answer.content()
        stored = Jobs(answer.blob)
        return Found(answer.now, list(stored.every(jobs)), _position(end))

    return Call(script("find"), to_json([listing, limit]), read, suspects=lambda: mending.suspects(listing=listing))


def count(wanted: JobFilter, names: Sequence[str], after: Position | None) -> Call[Counts]:
    """`names` as in `find`; none are needed where counters know."""
    if wanted.needs_scan:
        listing = _listing(wanted, names, after)
    else:
        listing = {"queues": list(wanted.queues), "states": _states(wanted)}

    def read(answer: Answer) -> Counts:
        by_state, end = answer.content()
        return Counts({JobState(state): number for state, number in by_state.items()}, _position(end))

    suspects = (lambda: mending.suspects(listing=listing)) if wanted.needs_scan else None
    return Call(script("count"), to_json([listing, not wanted.needs_scan]), read, suspects=suspects)


def _listing(wanted: JobFilter, names: Sequence[str], after: Position | None) -> dict[str, Any]:
    """What the scripts know of a filter, as far as they look: false = not asked for."""
    states = _states(wanted)
    queues = sorted(wanted.queues) or names
    if not wanted.user_id:
        behind = [name for name in queues if after is None or name >= after.queue]
        # Every state index of a queue is looked at, but for those before `after`: so many queues are enough.
        queues = behind[: SCAN // len(states) + 2]
    return {
        "user": wanted.user_id or False,
        "queues": list(queues),
        "states": states,
        "types": list(wanted.types),
        "created_from": _number(wanted.created_from),
        "created_before": _number(wanted.created_before),
        "after": False if after is None else [after.queue, after.state, str(after.score), after.id],
    }


def _states(wanted: JobFilter) -> list[JobState]:
    return [state for state in JobState if not wanted.states or state in wanted.states]


def _number(value: int | None) -> str | bool:
    return False if value is None else str(value)


def _position(place: Sequence[str] | None) -> Position | None:
    if not place:
        return None
    queue, state, score, job_id = place
    return Position(queue, JobState(state), int(score), job_id)
