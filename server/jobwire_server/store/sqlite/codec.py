"""The one place where a job becomes a row and a row a job. Structures stand in the file as store.parts spells them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from jobwire_server.domain.job import Attempt, Job, JobState, RetryPolicy
from jobwire_server.store import parts

_BESIDE: Final = frozenset({"submission", "error", "history"})
"""Fields that stand in tables beside `job`. The others are columns of it under the same names."""

_TABLES: Final = {"submission": "submission.content", "error": "detail.error", "history": "detail.history"}


def columns(**otherwise: str) -> str:
    """The fields of a Job in their order, as expressions of the tables that hold them, or as these say instead."""
    named = {**{field: f"job.{field}" for field in Job._fields}, **_TABLES, **otherwise}
    return ", ".join(named[field] for field in Job._fields)


SELECT: Final = (
    f"SELECT job.number, {columns()} FROM job "
    "LEFT JOIN submission ON submission.number = job.number "
    "LEFT JOIN detail ON detail.number = job.number "
)
"""Whole jobs, as `decode` takes them; the rest of the statement follows."""

SELECT_ROW: Final = f"SELECT job.number, {columns(submission='NULL', error='NULL', history='NULL')} FROM job "
"""Jobs without what stands beside them, as `decode` takes them; the rest of the statement follows."""

UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError)
"""What reading a damaged row raises: broken UTF-8 or JSON (both ValueError), an unknown word, another shape."""

_STATES: Final = {state.value: state for state in JobState}

_AT: Final = {field: at for at, field in enumerate(Job._fields)}
_RETRY, _STATE, _OUTCOME, _PROGRESS = (_AT[name] for name in ("retry", "state", "outcome", "progress"))
_ACKNOWLEDGED, _CANCEL_REQUESTED = _AT["acknowledged"], _AT["cancel_requested"]
_SUBMISSION, _ERROR, _HISTORY = (_AT[name] for name in ("submission", "error", "history"))

_DEFAULT_RETRY: Final = RetryPolicy()


def decode(row: Sequence[Any]) -> tuple[int, Job]:
    """A row of SELECT or SELECT_ROW → its number and its job. Raises one of UNREADABLE."""
    number, *values = row
    values[_STATE] = _STATES[values[_STATE]]
    values[_ACKNOWLEDGED] = values[_ACKNOWLEDGED] == 1
    values[_CANCEL_REQUESTED] = values[_CANCEL_REQUESTED] == 1
    values[_RETRY] = _DEFAULT_RETRY if values[_RETRY] is None else parts.decode_retry(values[_RETRY])
    if values[_OUTCOME] is not None:
        values[_OUTCOME] = parts.OUTCOMES[values[_OUTCOME]]
    if values[_PROGRESS] is not None:
        values[_PROGRESS] = parts.decode_progress(values[_PROGRESS])
    if values[_SUBMISSION] is None:
        values[_SUBMISSION] = b""
    if values[_ERROR] is not None:
        values[_ERROR] = parts.decode_error(values[_ERROR])
    values[_HISTORY] = decode_history(values[_HISTORY])
    return number, Job._make(values)


class Spelling:
    """How changes of certain fields are written: which of them are columns of `job`, and what SQLite does not take as
    it is. (It takes our words, StrEnum, as text and booleans as 0 and 1.)"""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.columns: Final = tuple(name for name in names if name not in _BESIDE)
        self.stands_beside: Final = len(self.columns) < len(names)
        self._take: Final = itemgetter(*self.columns)
        self._encoders: Final = [
            (at, _ENCODERS[column]) for at, column in enumerate(self.columns) if column in _ENCODERS
        ]

    def encode(self, changes: Mapping[str, Any]) -> Sequence[Any]:
        """Fields of a Job → the values of `columns`. There are always several: version, update time, …"""
        values: Sequence[Any] = self._take(changes)
        if not self._encoders:
            return values
        encoded = [*values]
        for at, encoder in self._encoders:
            if encoded[at] is not None:
                encoded[at] = encoder(encoded[at])
        return encoded


spelling: Final = lru_cache(maxsize=256)(Spelling)


def encode_retry(retry: RetryPolicy) -> str | None:
    """NULL for the policy that nearly all jobs have."""
    return None if retry is _DEFAULT_RETRY or retry == _DEFAULT_RETRY else parts.encode_retry(retry)


def decode_history(text: str | None) -> tuple[Attempt, ...]:
    """None: nothing stands beside the row."""
    return () if text is None else parts.decode_history(text)


def encode_texts(texts: Sequence[str] | Sequence[tuple[str, str]]) -> str:
    """A worker's queues, or its labels; "" for none."""
    return parts.to_json(texts) if texts else ""


def decode_queues(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()


def decode_labels(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text)) if text else ()


_ENCODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "retry": encode_retry,
    "progress": parts.encode_progress,
}
