"""The one place where a job becomes a row and a row a job.

Structures stand in the file as compact JSON arrays; their shape is spelled here and nowhere else. JSON text carries any
Unicode, and Python's reader and writer keep 64-bit integers and floats exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from jobwire_server.domain.job import Attempt, AttemptOutcome, Job, JobError, JobState, Progress, RetryPolicy

_BESIDE: Final = ("submission", "result", "error", "history")
"""Fields that stand in tables beside `job`."""

COLUMNS: Final = tuple(field.name for field in fields(Job) if field.name not in _BESIDE)
"""The other fields, which are columns of `job` under the same names."""

_FIELDS: Final = (*COLUMNS, *_BESIDE)

SELECT: Final = (
    f"SELECT {', '.join(f'job.{column}' for column in COLUMNS)}, "
    "submission.content, result.content, detail.error, detail.history, job.number FROM job "
    "LEFT JOIN submission ON submission.number = job.number "
    "LEFT JOIN result ON result.number = job.number "
    "LEFT JOIN detail ON detail.number = job.number "
)
"""Whole jobs, as `decode` takes them; the rest of the statement follows."""

UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError)
"""What reading a damaged row raises: broken UTF-8 or JSON (both ValueError), an unknown word, another shape."""

Fields = dict[str, Any]
"""Fields of a Job by name."""

_STATES: Final = {state.value: state for state in JobState}
_SETTERS: Final = [(name, getattr(Job, name).__set__) for name in _FIELDS]
_OUTCOMES: Final = {outcome.value: outcome for outcome in AttemptOutcome}


def decode(row: Sequence[Any]) -> tuple[int, Fields]:
    """A row of SELECT → its number, and its fields as Job takes them. Raises one of UNREADABLE."""
    values = dict(zip(_FIELDS, row, strict=False))
    values["retry"] = _decode_retry(values["retry"])
    values["state"] = _STATES[values["state"]]
    values["acknowledged"] = values["acknowledged"] == 1
    values["cancel_requested"] = values["cancel_requested"] == 1
    if values["outcome"] is not None:
        values["outcome"] = _OUTCOMES[values["outcome"]]
    if values["progress"] is not None:
        fraction, message, update_time = json.loads(values["progress"])
        values["progress"] = Progress(fraction, message, update_time)
    if values["submission"] is None:
        values["submission"] = b""
    values["error"] = decode_error(values["error"])
    values["history"] = decode_history(values["history"])
    return row[-1], values


def job_of(fields: Fields) -> Job:
    """All the fields of a job → the job.

    It sets the slots itself: the generated __init__ of a frozen class takes twice as long, and was the largest part of
    all the Python in a claim or a move.
    """
    job = object.__new__(Job)
    for name, set_field in _SETTERS:
        set_field(job, fields[name])
    return job


def encode(changes: Fields) -> Fields:
    """Fields of a Job → the columns of `job` among them, as SQLite takes them."""
    columns = changes.copy()
    for name in _BESIDE:
        columns.pop(name, None)
    for name, encoder in _ENCODERS.items():
        if columns.get(name) is not None:
            columns[name] = encoder(columns[name])
    return columns


@lru_cache(maxsize=1024)  # nearly all jobs share a few policies
def _decode_retry(text: str) -> RetryPolicy:
    retries, initial_delay, multiplier, max_delay, jitter, interruptions = json.loads(text)
    return RetryPolicy(retries, initial_delay, multiplier, max_delay, jitter, interruptions)


@lru_cache(maxsize=1024)
def encode_retry(retry: RetryPolicy) -> str:
    return _json(
        [
            retry.max_retries,
            retry.initial_delay,
            retry.multiplier,
            retry.max_delay,
            retry.jitter,
            retry.max_interruptions,
        ]
    )


def _encode_progress(progress: Progress) -> str:
    return _json([progress.fraction, progress.message, progress.update_time])


def encode_error(error: JobError | None) -> str | None:
    return None if error is None else _json(_list_of_error(error))


def decode_error(text: str | None) -> JobError | None:
    return None if text is None else _error_of_list(json.loads(text))


def encode_history(history: Sequence[Attempt]) -> str:
    return _json(
        [
            [
                attempt.number,
                attempt.worker_id,
                attempt.start_time,
                attempt.end_time,
                attempt.outcome,
                attempt.token.hex(),
                None if attempt.error is None else _list_of_error(attempt.error),
            ]
            for attempt in history
        ]
    )


def decode_history(text: str | None) -> tuple[Attempt, ...]:
    if text is None:
        return ()
    return tuple(
        Attempt(
            number,
            worker_id,
            start_time,
            end_time,
            _OUTCOMES[outcome],
            bytes.fromhex(token),
            None if error is None else _error_of_list(error),
        )
        for number, worker_id, start_time, end_time, outcome, token, error in json.loads(text)
    )


def encode_texts(texts: Sequence[str] | Sequence[tuple[str, str]]) -> str:
    """A worker's queues, or its labels; "" for none."""
    return _json(texts) if texts else ""


def _list_of_error(error: JobError) -> list[Any]:
    return [error.code, error.message, error.details, error.worker_id]


def _error_of_list(parts: Sequence[Any]) -> JobError:
    code, message, details, worker_id = parts
    return JobError(code, message, tuple((key, value) for key, value in details), worker_id)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_ENCODERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "retry": encode_retry,
    "progress": _encode_progress,
}
"""Of what SQLite does not take as it is; it takes our words (StrEnum) as text and booleans as 0 and 1."""
