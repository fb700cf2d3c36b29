"""The one place where a job becomes fields of a hash and fields a job.

A field of the hash has the name it has in `Job`; its value is text: a decimal number, a word, hex for tokens and
operations, or compact JSON for a structure. **A field that is absent has its default**, which is never stored, so
that a job costs memory and work for what is said about it only.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jobwire_server.domain.job import DEFAULT_PRIORITY, Job, JobState, NewJob, RetryPolicy
from jobwire_server.store import parts

Stored = str | bool
"""What a script writes into a field: text, or False for the default."""

STATES: Final = {state.value: state for state in JobState}


# --- from the domain to the hash ----------------------------------------------------------------------------


def encode_new(new: NewJob) -> list[object]:
    """What a create is told: what it judges by (creating.lua has the order), then the names and texts of the fields
    that it writes beside those only the store knows."""
    digest = b64encode(new.digest).decode()
    priority = new.priority != DEFAULT_PRIORITY and str(new.priority)
    schedule_time = new.schedule_time is not None and str(new.schedule_time)
    expire_time = new.expire_time is not None and str(new.expire_time)
    encoded: list[object] = [
        new.id,
        new.id_given,
        new.request_key is not None and new.request_key.hex(),
        digest,
        new.queue,
        schedule_time,
        expire_time,
        new.user_id or False,
        priority,
        len(new.submission),
        "queue",
        new.queue,
        "digest",
        digest,
    ]
    for name, text in (
        ("type", new.type),
        ("user_id", new.user_id),
        ("priority", priority),
        ("schedule_time", schedule_time),
        ("expire_time", expire_time),
    ):
        if text:
            encoded += (name, text)
    if new.retry != _DEFAULT_RETRY:
        encoded += ("retry", parts.encode_retry(new.retry))
    if new.execution_timeout is not None:
        encoded += ("execution_timeout", str(new.execution_timeout))
    if new.retention is not None:
        encoded += ("retention", str(new.retention))
    return encoded


def encode_changes(changes: Iterable[tuple[str, Any]]) -> dict[str, Stored]:
    """What a Move writes into the hash, by field."""
    return {name: False if value == DEFAULTS[name] else ENCODERS[name](value) for name, value in changes}


def encode_progress_so_far(fraction: float | None, message: str) -> str:
    """Progress but for its time and the bracket after it, which the store adds."""
    return parts.to_json([fraction, message])[:-1] + ","


# --- from the hash to the domain ----------------------------------------------------------------------------


def decode(
    job_id: str,
    stored: bytes,
    detail: bytes,
    submission: bytes,
    result: bytes | None,
    *,
    is_whole: bool = False,
) -> Job:
    """The job that these fields say: names and values in turn, split by NUL; an empty value is none, and of two values
    for one name the later one holds. `detail` is a JSON object of the fields that may grow. Raises one of UNREADABLE;
    when the job should be whole, also where it lacks a field that every job of its state has.

    """
    values: dict[str, str] = {}
    words = stored.decode().split("\0")
    values.update(zip(words[::2], words[1::2], strict=True))
    if detail:
        values.update(json.loads(detail))
    job = [*_BLANK]
    for name, value in values.items():
        if value and name in _READERS:
            at, convert = _READERS[name]
            job[at] = convert(value)
    job[_AT["id"]] = job_id
    job[_AT["submission"]] = submission
    job[_AT["result"]] = result
    if job[_AT["update_time"]] == 0:
        job[_AT["update_time"]] = job[_AT["create_time"]]
    if job[_AT["lease_expire_time"]] is None and job[_AT["state"]] is JobState.IN_PROGRESS:
        job[_AT["lease_expire_time"]] = job[_AT["score"]]
    read = Job._make(job)
    if is_whole and not (read.queue and read.score and read.create_time and "state" in values):
        raise ValueError("a field that every job has is missing")
    if is_whole and read.state is JobState.IN_PROGRESS and not (read.token and read.worker_id and read.claim_time):
        raise ValueError("a lease without its parts")
    return read


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
    "state": (JobState.QUEUED, _same, STATES.__getitem__),
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

UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a damaged record raises."""

DEFAULTS: Final = {name: shape[0] for name, shape in _SHAPES.items()}
ENCODERS: Final = {name: shape[1] for name, shape in _SHAPES.items()}
DECODERS: Final = {name: shape[2] for name, shape in _SHAPES.items()}

_AT: Final = {name: at for at, name in enumerate(Job._fields)}
_BLANK: Final = [DEFAULTS.get(name) for name in Job._fields]
_READERS: Final = {name: (_AT[name], shape[2]) for name, shape in _SHAPES.items()}
