"""The one place where a job becomes fields of a hash and fields a job.

A field of the hash has the name it has in `Job`; its value is text: a decimal number, a word, hex for tokens and
operations, or compact JSON for a structure. **A field that is absent has its default**, which is never stored, so
that a job costs memory and work for what is said about it only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Final

from jobwire_server.domain.job import DEFAULT_PRIORITY, Job, JobState, NewJob, RetryPolicy
from jobwire_server.store import parts

Stored = str | bool
"""What a script writes into a field: text, or False for the default."""

_STATES: Final = {state.value: state for state in JobState}


# --- from the domain to the hash ----------------------------------------------------------------------------


def encode_new(new: NewJob) -> dict[str, object]:
    """What a create is told: what it judges by, and in `put` the fields that it writes beside those only the store
    knows."""
    digest = base64.b64encode(new.digest).decode()
    put = ["queue", new.queue, "digest", digest]
    encoded: dict[str, object] = {
        "id": new.id,
        "queue": new.queue,
        "digest": digest,
        "submission_size": len(new.submission),
        "put": put,
    }
    if new.id_given:
        encoded["id_given"] = True
    if new.request_key is not None:
        encoded["request_key"] = new.request_key.hex()
    if new.type:
        put += ("type", new.type)
    if new.retry != _DEFAULT_RETRY:
        put += ("retry", parts.encode_retry(new.retry))
    for name in _JUDGED:
        value = getattr(new, name)
        if value != DEFAULTS[name]:
            text = ENCODERS[name](value)
            encoded[name] = text
            put += (name, text)
    for name in ("execution_timeout", "retention"):
        value = getattr(new, name)
        if value is not None:
            put += (name, str(value))
    return encoded


def encode_changes(changes: Iterable[tuple[str, Any]]) -> dict[str, Stored]:
    """What a Move writes into the hash, by field."""
    return {name: False if value == DEFAULTS[name] else ENCODERS[name](value) for name, value in changes}


def encode_progress_so_far(fraction: float | None, message: str) -> str:
    """Progress but for its time and the bracket after it, which the store adds."""
    return parts.to_json([fraction, message])[:-1] + ","


# --- from the hash to the domain ----------------------------------------------------------------------------


def decode(job_id: str, stored: bytes, detail: bytes, submission: bytes, result: bytes | None) -> Job:
    """The job that these fields say: names and values in turn, split by NUL; an empty value is none, and of two values
    for one name the later one holds. `detail` is a JSON object of the fields that may grow.

    It sets the slots itself: the generated __init__ of a frozen class takes twice as long, and this is the largest part
    of all the Python in a claim or a move.
    """
    words = stored.decode().split("\0")
    values = dict(zip(words[::2], words[1::2], strict=True))
    if detail:
        values.update(json.loads(detail))
    job = object.__new__(Job)
    for set_field, default in _CLEAR:
        set_field(job, default)
    for name, value in values.items():
        if value and name in _READERS:
            set_field, convert = _READERS[name]
            set_field(job, convert(value))
    _SET["id"](job, job_id)
    _SET["submission"](job, submission)
    _SET["result"](job, result)
    if job.update_time == 0:
        _SET["update_time"](job, job.create_time)
    if job.lease_expire_time is None and job.state is JobState.IN_PROGRESS:
        _SET["lease_expire_time"](job, job.score)
    return job


def new_job(new: NewJob, *, state: str, score: int, queue_time: int | None, now: int) -> Job:
    """The job that a create has just stored."""
    job = object.__new__(Job)
    for set_field, default in _CLEAR:
        set_field(job, default)
    for name in _ASKED:
        _SET[name](job, getattr(new, name))
    _SET["state"](job, _STATES[state])
    _SET["score"](job, score)
    _SET["queue_time"](job, queue_time)
    _SET["create_time"](job, now)
    _SET["update_time"](job, now)
    return job


def _same(text: str) -> str:
    return text


def _is_set(text: str) -> bool:
    return text == "1"


def _set_flag(value: bool) -> str:
    return "1" if value else "0"


_DEFAULT_RETRY: Final = RetryPolicy()

_TEXT: Final = (_same, _same)
_NUMBER: Final = (str, int)
_FLAG: Final = (_set_flag, _is_set)
_BYTES: Final = (bytes.hex, bytes.fromhex)

_SHAPES: Final[Mapping[str, tuple[Any, Callable[[Any], str], Callable[[str], Any]]]] = {
    # name: default, to text, from text
    "queue": ("", *_TEXT),
    "type": ("", *_TEXT),
    "user_id": ("", *_TEXT),
    "priority": (DEFAULT_PRIORITY, *_NUMBER),
    "retry": (_DEFAULT_RETRY, parts.encode_retry, parts.decode_retry),
    "execution_timeout": (None, *_NUMBER),
    "retention": (None, *_NUMBER),
    "schedule_time": (None, *_NUMBER),
    "expire_time": (None, *_NUMBER),
    "state": (JobState.QUEUED, _same, _STATES.__getitem__),
    "score": (0, *_NUMBER),
    "version": (1, *_NUMBER),
    "revision": (1, *_NUMBER),
    "last_operation": (b"", *_BYTES),
    "create_time": (0, *_NUMBER),
    "update_time": (0, *_NUMBER),  # absent: as create_time
    "queue_time": (None, *_NUMBER),
    "start_time": (None, *_NUMBER),
    "finish_time": (None, *_NUMBER),
    "attempt": (0, *_NUMBER),
    "retry_count": (0, *_NUMBER),
    "interruption_count": (0, *_NUMBER),
    "release_count": (0, *_NUMBER),
    "return_count": (0, *_NUMBER),
    "token": (None, *_BYTES),
    "fence": (0, *_NUMBER),
    "worker_id": ("", *_TEXT),
    "claim_time": (None, *_NUMBER),
    "acknowledged": (False, *_FLAG),
    "lease_duration": (0, *_NUMBER),
    "lease_expire_time": (None, *_NUMBER),  # absent while IN_PROGRESS: the score
    "limit_time": (None, *_NUMBER),
    "outcome": (None, _same, parts.OUTCOMES.__getitem__),
    "end_time": (None, *_NUMBER),
    "progress": (None, parts.encode_progress, parts.decode_progress),
    "error": (None, parts.encode_error, parts.decode_error),
    "history": ((), parts.encode_history, parts.decode_history),
    "cancel_requested": (False, *_FLAG),
    "cancel_reason": ("", *_TEXT),
}

DEFAULTS: Final = {name: shape[0] for name, shape in _SHAPES.items()}
ENCODERS: Final = {name: shape[1] for name, shape in _SHAPES.items()}

_SET: Final = {field.name: getattr(Job, field.name).__set__ for field in fields(Job)}
_CLEAR: Final = [(_SET[field.name], DEFAULTS.get(field.name)) for field in fields(Job)]
_READERS: Final = {name: (_SET[name], shape[2]) for name, shape in _SHAPES.items()}
_JUDGED: Final = ("priority", "user_id", "schedule_time", "expire_time")
_ASKED: Final = [field.name for field in fields(NewJob) if field.name in _SET]
