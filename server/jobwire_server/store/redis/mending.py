"""Records that cannot be read: found when a call has stumbled over them, and set aside, so that their queue goes on.

Nobody looks for them before: a script that meets a field which is no number fails before it has written anything, and
codec.py raises. Then the records that the call may have met are judged, those that cannot be read become dead letters,
and the call is sent again.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from jobwire_server.domain.job import ENDED, JobError, JobState
from jobwire_server.domain.limits import NAME
from jobwire_server.store import parts
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis.codec import DECODERS, UNREADABLE, Stored
from jobwire_server.store.redis.scripts import Answer, Call, script

T = TypeVar("T")

CORRUPT_JOB: Final = "CORRUPT_JOB"

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 100
"""Records judged at a time: one may have a history of many kilobytes."""


class Send(Protocol):
    """Sends a call and answers what it read."""

    async def __call__(self, call: Call[T], /) -> T: ...


async def mend(send: Send, suspects: Call[list[str]], known: Sequence[str] = ()) -> int:
    """Sets those aside whose records cannot be read, of the suspects and of those known to be so; answers how many."""
    ids = list(dict.fromkeys([*known, *await send(suspects)]))
    mended = 0
    for first in range(0, len(ids), _AT_ONCE):
        records = await send(_stored(ids[first : first + _AT_ONCE]))
        broken = [(record, changes) for record in records if (changes := _judge(record)) is not None]
        if not broken:
            continue
        for job_id, queue in await send(_set_aside(broken)):
            _log.error("job %r of queue %r cannot be read: set aside as FAILED, CORRUPT_JOB", job_id, queue)
            mended += 1
    return mended


def suspects(
    *,
    ids: Sequence[str] = (),
    requests: Sequence[str] = (),
    workers: Sequence[str] = (),
    queues: Sequence[str] = (),
    states: Sequence[JobState] = (),
    is_due: bool = False,
    expiring: bool = False,
    listing: Mapping[str, Any] | None = None,
) -> Call[list[str]]:
    """Ids of jobs: these, those that these requests made, that these workers hold, the heads of these state indices (of
    all queues when none is named; of what is due only, where asked), those due to expire, the stretch of a listing."""
    asked = {
        "ids": list(ids),
        "requests": list(requests),
        "workers": list(workers),
        "queues": list(queues),
        "states": list(states),
        "is_due": is_due,
        "expiring": expiring,
        "listing": listing or False,
    }
    return Call(script("suspects"), to_json(asked), Answer.content)


@dataclass(frozen=True, slots=True)
class _Record:
    """A job's record as it is stored, whatever that is."""

    id: str
    digest: str
    record: bytes
    detail: bytes


def _stored(ids: Sequence[str]) -> Call[list[_Record]]:
    return Call(script("stored"), to_json(ids), lambda answer: list(_records(answer)))


def _records(answer: Answer) -> Iterator[_Record]:
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return answer.blob[at - size : at]

    for job_id, digest, record, detail in answer.content():
        yield _Record(job_id, digest, take(record), take(detail))


def _set_aside(broken: Sequence[tuple[_Record, Mapping[str, Stored]]]) -> Call[list[tuple[str, str]]]:
    arguments = [[record.id, record.digest, changes] for record, changes in broken]
    return Call(script("set_aside"), to_json(arguments), Answer.content)


# --- the judgement ------------------------------------------------------------------------------------------

_BESIDE: Final = ("error", "history", "progress", "cancel_reason")
"""Stand in the detail."""

_NEEDED: Final = ("queue", "state", "score", "create_time")
_NEEDED_IN: Final[Mapping[str, tuple[str, ...]]] = {
    JobState.SCHEDULED: ("schedule_time",),
    JobState.QUEUED: ("queue_time",),
    JobState.IN_PROGRESS: ("token", "fence", "worker_id", "claim_time"),
    **dict.fromkeys(ENDED, ("finish_time",)),
}

_INTEGER: Final = re.compile(r"-?[0-9]+", re.ASCII)

_ERROR: Final = parts.encode_error(
    JobError(CORRUPT_JOB, "the stored record of this job could not be read; its payload may be intact")
)

_ENDS: Final[Mapping[str, Stored]] = {
    # What a job that nobody has does not say, and what a repeated Move must not find.
    **dict.fromkeys(("token", "acknowledged", "lease_expire_time", "limit_time", "outcome", "end_time"), False),
    **dict.fromkeys(("last_operation", "progress"), False),
    "error": _ERROR,
}


def _judge(record: _Record) -> dict[str, Stored] | None:
    """What the record has to say instead, but for what only the store knows; None = it can be read."""
    fields, detail = _object(record.record), _object(record.detail or b"{}")
    values = {**(fields or {}), **{name: value for name, value in (detail or {}).items() if name in _BESIDE}}
    broken: dict[str, Stored] = {}
    for name, value in values.items():
        if name in DECODERS and not _can_be_read(name, value):
            broken[name] = _rest_of(value) if name in _TEXTS else False
    if fields is None:
        broken.update(dict.fromkeys(DECODERS.keys() - set(_BESIDE), False))
    intact = {name: value for name, value in values.items() if name not in broken}
    needed = (*_NEEDED, *_NEEDED_IN.get(intact.get("state", ""), ()))
    if not broken and detail is not None and all(map(intact.get, needed)):
        return None
    kept: dict[str, Stored] = {name: intact.get(name, False) for name in ("history", "cancel_reason")}
    return {**kept, **broken, **_ENDS}


_TEXTS: Final = frozenset({"type", "user_id", "cancel_reason"})
_NAMES: Final = frozenset({"queue", "worker_id"})


def _object(stored: bytes) -> dict[str, Any] | None:
    """What this JSON says by name, bytes that are no UTF-8 escaped; None when it cannot be read."""
    try:
        found = json.loads(stored.decode(errors="surrogateescape"))
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


def _can_be_read(name: str, value: Any) -> bool:
    """More than codec.decode asks for: Python takes `1_0` and `١` for numbers, which a script does not."""
    decode: Callable[[str], Any] = DECODERS[name]
    try:
        decode(value)
        value.encode()  # JSON can spell what UTF-8 cannot
    except UNREADABLE:
        return False
    if not isinstance(value, str) or "\0" in value:
        return False
    if name in _NAMES:
        return NAME.fullmatch(value) is not None
    return decode is not int or _INTEGER.fullmatch(value) is not None


def _rest_of(value: Any) -> Stored:
    if not isinstance(value, str):
        return False
    return value.encode(errors="surrogateescape").decode(errors="replace").replace("\0", "\ufffd")
