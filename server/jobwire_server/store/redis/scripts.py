"""The scripts, each with a typed stub: domain values in, a Call out, whose `read` makes domain values of the answer.

A call has one JSON argument and one of bytes, and one of each in its answer, however many jobs it is about: redis-py
takes a microsecond or more for every argument and every element of an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, Generic, TypeVar

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import (
    DAY,
    DEFAULT_PRIORITY,
    DEFAULT_RETENTION,
    MINUTE,
    SECOND,
    AttemptOutcome,
    Job,
    JobState,
    NewJob,
    Verb,
)
from jobwire_server.domain.move import Move
from jobwire_server.domain.queue import DEFAULT_AGEING, MIN_PRIORITY
from jobwire_server.store.base import (
    Claimed,
    ClaimOutcome,
    ClaimRequest,
    Claims,
    Created,
    CreateOutcome,
    Moved,
    Renewal,
    Renewed,
    Snapshot,
    WorkerInfo,
)
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis import codec, keys

T = TypeVar("T")

RESENT_WITHIN: Final = 30 * SECOND
"""A call that may be sent again is remembered for so long; longer than any deadline of ours."""

_NUMBERS: Final = {
    "DEFAULT_AGEING": DEFAULT_AGEING,
    "DEFAULT_PRIORITY": DEFAULT_PRIORITY,
    "MIN_PRIORITY": MIN_PRIORITY,
    "LOOK_PAST": 10,  # expired jobs at the head that one claim looks past
    "MAX_RETURNED": 20,  # at so many returned deliveries in a row a worker gets nothing more …
    "REFUSED_FOR": MINUTE,  # … for so long
    "REMEMBERED": DAY,  # how long a request id is
    "PURGE_PAUSE": MINUTE,  # after an outage
    "RESENT_WITHIN": RESENT_WITHIN // 1000,  # milliseconds
}

_INCLUDE: Final = re.compile(r"^--!include (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as it is sent: known to the engine by the SHA-1 of its text."""

    name: str
    source: str
    sha: str


@cache
def script(name: str) -> Script:
    """Puts a script together: its flags, the names of keys, our numbers, and the files that it includes."""
    text = _read(f"{name}.lua")
    flags, body = text.split("\n", 1)
    retention = ", ".join(f"{state} = '{period}'" for state, period in DEFAULT_RETENTION.items())
    numbers = "".join(f"local {number} = {value}\n" for number, value in _NUMBERS.items())
    head = f"{flags}\n{keys.lua()}{numbers}local DEFAULT_RETENTION = {{ {retention} }}\n"
    source = head + _INCLUDE.sub(lambda found: "".join(map(_library, found[1].split())), body)
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def _library(name: str) -> str:
    return _read(f"lib/{name}.lua")


def _read(path: str) -> str:
    return files(__package__).joinpath("lua").joinpath(path).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Answer:
    """What every script answers."""

    now: int
    change: int
    """The number of the change that it made; 0 when it made none."""
    hints: bytes
    """What it meant to those who wait, as JSON; empty when nothing."""
    json: bytes
    blob: bytes

    def content(self) -> Any:
        return json.loads(self.json)


class _Jobs:
    """Reads jobs off an answer, in the order in which the script put them there."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._at = 0

    def next(self, found: Sequence[Any]) -> Job | None:
        """The job whose id and sizes these are; None for none."""
        if not found:
            return None
        job_id, fields, detail, submission, result = found
        return codec.decode(
            job_id,
            self._take(fields),
            self._take(detail),
            self._take(submission),
            None if result < 0 else self._take(result),
        )

    def every(self, found: Sequence[Any]) -> Iterator[Job]:
        for sizes in found:
            job = self.next(sizes)
            if job is not None:
                yield job

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._blob[self._at - size : self._at]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of a script."""

    script: Script
    arguments: str
    """What the script finds in ARGS, as JSON; numbers that may have more than 53 bits are texts there."""
    read: Callable[[Answer], T]
    blob: bytes = b""


def open_store(schema: int, partitions: int) -> Call[list[str]]:
    """The schema and the number of partitions of what is there; these ones when nothing was."""
    return Call(script("open"), to_json([str(schema), str(partitions)]), Answer.content)


def get(job_ids: Sequence[str]) -> Call[Snapshot]:
    return Call(script("get"), to_json(job_ids), _snapshot)


def create(jobs: Sequence[NewJob]) -> Call[list[Created]]:
    arguments = [codec.encode_new(new) for new in jobs]

    def read(answer: Answer) -> list[Created]:
        stored = _Jobs(answer.blob)
        return [_created(new, made, stored, answer.now) for new, made in zip(jobs, answer.content(), strict=True)]

    return Call(script("create"), to_json(arguments), read, b"".join(new.submission for new in jobs))


def _created(new: NewJob, made: Sequence[Any], stored: _Jobs, now: int) -> Created:
    match made:
        case [outcome, job_id]:
            return Created(CreateOutcome(outcome), job_id, None, 0)
        case [outcome, job_id, position, found]:
            return Created(CreateOutcome(outcome), job_id, stored.next(found), position)
        case [_, job_id, position, state, score, *queue_time]:
            entered = int(queue_time[0]) if queue_time else None
            job = codec.new_job(new, state=state, score=int(score), queue_time=entered, now=now)
            return Created(CreateOutcome.CREATED, job_id, job, position)
    raise ValueError(f"an answer of {len(made)} parts")


def claim(queue: str, requests: Sequence[ClaimRequest]) -> Call[Claims]:
    arguments = [
        queue,
        [
            {
                "worker_id": request.worker_id,
                "session": str(request.session),
                "max_in_flight": request.max_in_flight,
                "tokens": [token.hex() for token in request.tokens],
                "lease_duration": str(request.lease_duration),
                "delivery_timeout": str(request.delivery_timeout),
            }
            for request in requests
        ],
    ]

    def read(answer: Answer) -> Claims:
        content = answer.content()
        stored = _Jobs(answer.blob)
        claimed = [
            Claimed(ClaimOutcome(outcome), list(stored.every(jobs)), held) for outcome, held, jobs in content["claimed"]
        ]
        return Claims(answer.now, claimed, content["remaining"])

    return Call(script("claim"), to_json(arguments), read)


def move(moves: Sequence[Move]) -> Call[list[Moved]]:
    large: list[bytes] = []
    # What many Moves of a batch have in common is sent once.
    shapes: dict[str, int] = {}
    arguments = []
    for each in moves:
        kept = tuple(item for item in each.changes.items() if item[0] not in _BESIDE)
        guard = each.guard
        shape = _shape(
            each.verb, each.to, each.outcome, guard.unacknowledged, guard.overdue, "result" in each.changes, kept
        )
        arguments.append([shapes.setdefault(shape, len(shapes) + 1), *_move(each, large)])

    def read(answer: Answer) -> list[Moved]:
        stored = _Jobs(answer.blob)
        return [Moved(_OUTCOMES[outcome], stored.next(found)) for outcome, found in answer.content()]

    return Call(script("move"), f"[[{','.join(shapes)}],{to_json(arguments)}]", read, b"".join(large))


@lru_cache(maxsize=256)  # nearly all are completions
def _shape(
    verb: Verb,
    to: JobState,
    outcome: AttemptOutcome | None,
    unacknowledged: bool,
    overdue: bool,
    writes_result: bool,
    changes: tuple[tuple[str, Any], ...],
) -> str:
    return to_json(
        {
            "verb": verb,
            "to": to,
            "outcome": outcome or False,
            "unacknowledged": unacknowledged,
            "overdue": overdue,
            "writes_result": writes_result,
            "changes": codec.encode_changes(changes),
        }
    )


def _move(move: Move, large: list[bytes]) -> Iterator[object]:
    """What is its own: id, operation, token, version, size of the submission and of the result; False = none."""
    guard, changes = move.guard, move.changes
    yield move.job_id
    yield move.operation.hex()
    yield False if guard.token is None else guard.token.hex()
    yield False if guard.version is None else str(guard.version)
    for value in (changes.get("submission"), changes.get("result")):
        yield False if value is None else len(value)
        if value is not None:
            large.append(value)


def renew(renewals: Sequence[Renewal]) -> Call[list[Renewed]]:
    arguments = [
        [
            renewal.job_id,
            renewal.token.hex(),
            codec.encode_progress_so_far(renewal.fraction, renewal.message) if renewal.has_progress else False,
        ]
        for renewal in renewals
    ]

    def read(answer: Answer) -> list[Renewed]:
        stored = _Jobs(answer.blob)
        return [
            _renewed(_OUTCOMES[outcome], remaining, stored.next(found))
            for outcome, remaining, found in answer.content()
        ]

    return Call(script("renew"), to_json(arguments), read)


def _renewed(outcome: Outcome, remaining: int, job: Job | None) -> Renewed:
    if job is None or outcome is not Outcome.OK:
        return Renewed(outcome, job=job)
    return Renewed(outcome, remaining, job.cancel_requested, job.cancel_reason, job)


def promote(limit: int) -> Call[int]:
    return Call(script("promote"), to_json([limit]), Answer.content)


def overdue(queues: Sequence[str], limit: int) -> Call[Snapshot]:
    return Call(script("overdue"), to_json([limit, list(queues)]), _snapshot)


def leased(queues: Sequence[str], longer_than: int, limit: int) -> Call[Snapshot]:
    return Call(script("leased"), to_json([str(longer_than), limit, list(queues)]), _snapshot)


def purge(limit: int) -> Call[int]:
    return Call(script("purge"), to_json([limit]), Answer.content)


def beat(worker: WorkerInfo) -> Call[bool]:
    said = {
        "host": worker.host,
        "pid": str(worker.pid or ""),
        "runtime": worker.runtime,
        "version": worker.version,
        "labels": to_json(worker.labels) if worker.labels else "",
        "queues": to_json(worker.queues) if worker.queues else "",
    }
    heard = {field: value for field, value in said.items() if value}
    return Call(script("beat"), to_json([worker.id, str(worker.session), heard]), Answer.content)


def _snapshot(answer: Answer) -> Snapshot:
    stored = _Jobs(answer.blob)
    return Snapshot(answer.now, [stored.next(found) for found in answer.content()])


_BESIDE: Final = frozenset({"submission", "result"})
"""What a Move writes that is no field of the hash."""

_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
