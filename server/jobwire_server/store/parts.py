"""The structured parts of a job as compact JSON arrays: one shape for every store, spelled here and nowhere else.

JSON text carries any Unicode, and Python's reader and writer keep 64-bit integers and floats exactly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from jobwire_server.domain.job import Attempt, AttemptOutcome, JobError, Progress, RetryPolicy

OUTCOMES: Final = {outcome.value: outcome for outcome in AttemptOutcome}


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=1024)  # nearly all jobs share a few policies
def encode_retry(retry: RetryPolicy) -> str:
    return to_json(
        [
            retry.max_retries,
            retry.initial_delay,
            retry.multiplier,
            retry.max_delay,
            retry.jitter,
            retry.max_interruptions,
        ]
    )


@lru_cache(maxsize=1024)
def decode_retry(text: str) -> RetryPolicy:
    retries, initial_delay, multiplier, max_delay, jitter, interruptions = json.loads(text)
    return RetryPolicy(retries, initial_delay, multiplier, max_delay, jitter, interruptions)


def encode_progress(progress: Progress) -> str:
    return to_json([progress.fraction, progress.message, progress.update_time])


def decode_progress(text: str) -> Progress:
    fraction, message, update_time = json.loads(text)
    return Progress(fraction, message, update_time)


def encode_error(error: JobError) -> str:
    return to_json(_list_of_error(error))


def decode_error(text: str) -> JobError:
    return _error_of_list(json.loads(text))


def encode_history(history: Sequence[Attempt]) -> str:
    return to_json(
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


def decode_history(text: str) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(
            number,
            worker_id,
            start_time,
            end_time,
            OUTCOMES[outcome],
            bytes.fromhex(token),
            None if error is None else _error_of_list(error),
        )
        for number, worker_id, start_time, end_time, outcome, token, error in json.loads(text)
    )


def _list_of_error(error: JobError) -> list[Any]:
    return [error.code, error.message, error.details, error.worker_id]


def _error_of_list(parts: Sequence[Any]) -> JobError:
    code, message, details, worker_id = parts
    return JobError(code, message, tuple((key, value) for key, value in details), worker_id)
