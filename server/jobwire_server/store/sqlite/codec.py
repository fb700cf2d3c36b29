"""The one place where a job becomes a row and a row a job. Structures stand in the file as store.parts spells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from jobwire_server.domain.job import Attempt, Job, JobState
from jobwire_server.store import parts

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


def decode(row: Sequence[Any]) -> tuple[int, Fields]:
    """A row of SELECT → its number, and its fields as Job takes them. Raises one of UNREADABLE."""
    values = dict(zip(_FIELDS, row, strict=False))
    values["retry"] = parts.decode_retry(values["retry"])
    values["state"] = _STATES[values["state"]]
    values["acknowledged"] = values["acknowledged"] == 1
    values["cancel_requested"] = values["cancel_requested"] == 1
    if values["outcome"] is not None:
        values["outcome"] = parts.OUTCOMES[values["outcome"]]
    if values["progress"] is not None:
        values["progress"] = parts.decode_progress(values["progress"])
    if values["submission"] is None:
        values["submission"] = b""
    if values["error"] is not None:
        values["error"] = parts.decode_error(values["error"])
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


def decode_history(text: str | None) -> tuple[Attempt, ...]:
    """None: nothing stands beside the row."""
    return () if text is None else parts.decode_history(text)


def encode_texts(texts: Sequence[str] | Sequence[tuple[str, str]]) -> str:
    """A worker's queues, or its labels; "" for none."""
    return parts.to_json(texts) if texts else ""


_ENCODERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "retry": parts.encode_retry,
    "progress": parts.encode_progress,
}
"""Of what SQLite does not take as it is; it takes our words (StrEnum) as text and booleans as 0 and 1."""
