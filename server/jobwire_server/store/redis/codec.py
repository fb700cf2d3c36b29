"""The one place where a job becomes a record and a record a job.

A record is a JSON object of texts, by the names of their fields in `Job`: a decimal number, a word, hex for tokens and
operations, or compact JSON for a structure. **A field that is absent has its default**, so that a job costs memory and
work for what is said about it only.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from jobwire_server.domain.job import DEFAULT_PRIORITY, Job, JobState, NewJob, RetryPolicy
from jobwire_server.store import parts

Stored = str | bool
"""What a script writes into a field: text, or False for the default."""

STATES: Final = {state.value: state for state in JobState}


# --- from the domain to the record ----------------------------------------------------------------------------


_ALIKE: Final = (
    "id_given",
    "queue",
    "type",
    "user_id",
    "priority",
    "retry",
    "execution_timeout",
    "retention",
    "schedule_time",
    "expire_time",
    "webhook_events",
)
"""What most new jobs of a batch have in common."""

alike: Final[Callable[[NewJob], tuple[Any, ...]]] = itemgetter(*map(NewJob._fields.index, _ALIKE))


@lru_cache(maxsize=1024)
def encode_alike(values: tuple[Any, ...]) -> str:
    """What a create is told of all jobs that are `alike`, as JSON: what it judges by (creating.lua has the order), then
    the fields that they say of themselves, as the inside of a JSON object."""
    said = dict(zip(_ALIKE, values, strict=True))
    id_given = said.pop("id_given")
    texts = {name: text for name, text in encode_changes(said.items()).items() if text is not False}
    texts["queue"] = said["queue"]
    judged = (texts.get(name, False) for name in ("queue", "priority", "schedule_time", "expire_time", "user_id"))
    is_plain = not texts.keys() & _NEVER_PLAIN
    return parts.to_json([id_given, *judged, is_plain, parts.to_json(texts)[1:-1]])


def encode_spec(digest: bytes, submission: bytes) -> bytes:
    """What stands beside the record from the start, and what nobody looks at while the job lives."""
    return b"%c%b%b" % (len(digest), digest, submission)


def encode(job: Job) -> tuple[bytes, bytes, bytes | None]:
    """A whole job, as no script has made it: its record, the detail (empty = none) and the result (None = none) that
    are kept beside it. What `encode_spec` makes is the fourth part."""
    said = dict(zip(Job._fields, job, strict=True))
    for name in ("id", "submission"):
        del said[name]
    if job.update_time == job.create_time:
        del said["update_time"]
    if job.state is JobState.IN_PROGRESS and job.lease_expire_time == job.score:
        del said["lease_expire_time"]
    result = job.result if job.result is not None and len(job.result) > SMALL_RESULT else None
    if result is not None:
        del said["result"]
    texts = {name: text for name, text in encode_changes(said.items()).items() if text is not False}
    detail = {name: texts.pop(name) for name in _DETAILS & texts.keys()}
    beside = ("d" if detail else "") + ("r" if result is not None else "")
    if beside:
        texts["beside"] = beside
    # As creating.lua begins them: what nobody has changed may be leased as text (plain.lua).
    is_plain = job.version == 1 and job.state is JobState.QUEUED and not _NEVER_PLAIN & texts.keys()
    begins = {"version": "1", "state": "queued"} if is_plain else {"state": str(job.state)}
    record = {**begins, "score": str(job.score), **{name: text for name, text in texts.items() if name not in begins}}
    return to_bytes(record), to_bytes(detail) if detail else b"", result


def to_bytes(value: object) -> bytes:
    return parts.to_json(value).encode()


_DETAILS: Final = frozenset({"error", "history", "progress", "cancel_reason"})
"""What stands beside the record; changes.lua has the same."""

_NEVER_PLAIN: Final = frozenset({"expire_time", "execution_timeout", "webhook_events", "attempt", "beside"})

SMALL_RESULT: Final = 200
"""Bytes of a result that a completion writes into the record: a key of its own costs a hundred bytes and 2 µs."""


def encode_changes(changes: Iterable[tuple[str, Any]]) -> dict[str, Stored]:
    """What is written into a record, by field."""
    return {name: False if value == DEFAULTS[name] else ENCODERS[name](value) for name, value in changes}


def encode_progress_so_far(fraction: float | None, message: str) -> str:
    """Progress but for its time and the bracket after it, which the store adds."""
    return parts.to_json([fraction, message])[:-1] + ","


# --- from the record to the domain ----------------------------------------------------------------------------


def decode(
    job_id: str,
    record: bytes,
    detail: bytes,
    spec: bytes,
    result: bytes | None,
    *,
    is_whole: bool = False,
) -> Job:
    """The job that this record says, with what stands beside it: `detail`, a JSON object of the fields that may grow,
    and `spec`, as encode_spec makes it. Raises one of UNREADABLE; when the job should be whole, also where it lacks a
    field that every job of its state has.
    """
    text = record.decode()
    values, end = _read_json(text)  # json.loads looks for white space around it, and takes half as long again
    if end != len(text):
        raise ValueError("something follows the record")
    if detail:
        values.update(json.loads(detail))
    job = [*_BLANK]
    for name, value in values.items():
        if name in _READERS:
            at, convert = _READERS[name]
            job[at] = convert(value)
    job[_ID] = job_id
    job[_SUBMISSION] = spec[1 + spec[0] :] if spec else b""
    if result is not None:
        job[_RESULT] = result
    if job[_UPDATE_TIME] == 0:
        job[_UPDATE_TIME] = job[_CREATE_TIME]
    is_leased = job[_STATE] is JobState.IN_PROGRESS
    if is_leased and job[_LEASE_EXPIRE_TIME] is None:
        job[_LEASE_EXPIRE_TIME] = job[_SCORE]
    if is_whole and not ("state" in values and job[_QUEUE] and job[_SCORE] and job[_CREATE_TIME]):
        raise ValueError("a field that every job has is missing")
    if is_whole and is_leased and not (job[_TOKEN] and job[_WORKER_ID] and job[_CLAIM_TIME]):
        raise ValueError("a lease without its parts")
    return Job._make(job)


class Leased:
    """Reads the records of one answer. Jobs that were leased together are alike in all but their id, submission, token
    and two times; what they share is read once. Measured: 2.5 µs a job instead of 6.4."""

    def __init__(self) -> None:
        self._alike: dict[tuple[bytes, ...], Job] = {}

    def decode(self, job_id: str, record: bytes, spec: bytes) -> Job:
        """As `decode`, of a whole job that has no detail and no result beside its record."""
        token = record.find(b'"token":"') + 9
        after = token + 32
        queued = record.find(b'"queue_time":"', after) + 14
        then = record.find(b'"', queued)
        created = record.find(b'"create_time":"', then) + 15
        end = record.find(b'"', created)
        key = (record[:token], record[after:queued], record[then:created], record[end:])
        known = self._alike.get(key)
        if known is None:
            job = decode(job_id, record, b"", spec, None, is_whole=True)
            own = (job.token or b"").hex(), str(job.queue_time), str(job.create_time)
            is_found = own == (record[token:after].decode(), record[queued:then].decode(), record[created:end].decode())
            if is_found and b'"update_time":' in record:  # where that is absent it is the create time
                self._alike[key] = job
            return job
        fields: list[Any] = [*known]
        fields[_ID] = job_id
        fields[_SUBMISSION] = spec[1 + spec[0] :] if spec else b""
        fields[_TOKEN] = bytes.fromhex(record[token:after].decode())
        fields[_QUEUE_TIME] = int(record[queued:then])
        fields[_CREATE_TIME] = int(record[created:end])
        if not fields[_CREATE_TIME]:
            raise ValueError("a field that every job has is missing")
        return Job._make(fields)


_read_json: Final = json.JSONDecoder().raw_decode


def _same(text: str) -> str:
    return text


def _is_set(text: str) -> bool:
    return text == "1"


def _set_flag(value: bool) -> str:
    return "1" if value else "0"


_TEXT: Final = (_same, _same)
_NUMBER: Final = (str, int)
_FLAG: Final = (_set_flag, _is_set)
_BYTES: Final = (bytes.hex, bytes.fromhex)


def encode_result(result: bytes) -> str:
    """One that is small enough for the record."""
    return b2a_base64(result, newline=False).decode()


_SHAPES: Final[Mapping[str, tuple[Any, Callable[[Any], str], Callable[[str], Any]]]] = {
    # name: default, to text, from text
    "queue": ("", *_TEXT),
    "type": ("", *_TEXT),
    "user_id": ("", *_TEXT),
    "priority": (DEFAULT_PRIORITY, *_NUMBER),
    "retry": (RetryPolicy(), parts.encode_retry, parts.decode_retry),
    "execution_timeout": (None, *_NUMBER),
    "retention": (None, *_NUMBER),
    "schedule_time": (None, *_NUMBER),
    "expire_time": (None, *_NUMBER),
    "webhook_events": (0, *_NUMBER),
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
    "result": (None, encode_result, a2b_base64),  # absent: beside the record, or there is none
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
_ID, _SUBMISSION, _RESULT, _STATE, _SCORE = map(Job._fields.index, ("id", "submission", "result", "state", "score"))
_CREATE_TIME, _UPDATE_TIME, _QUEUE = map(Job._fields.index, ("create_time", "update_time", "queue"))
_TOKEN, _WORKER_ID, _CLAIM_TIME = map(Job._fields.index, ("token", "worker_id", "claim_time"))
_QUEUE_TIME, _LEASE_EXPIRE_TIME = map(Job._fields.index, ("queue_time", "lease_expire_time"))
