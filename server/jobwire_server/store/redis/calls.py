"""The verbs on jobs, as calls: domain values in, a Call out, whose `read` makes domain values of the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from jobwire_server.domain.activity import Event
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import ENDED, AttemptOutcome, JobState, NewJob, Verb
from jobwire_server.domain.move import AnyMove, Completion, Deletion, Move
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
    Standing,
)
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis import codec
from jobwire_server.store.redis.mending import suspects
from jobwire_server.store.redis.scripts import Answer, Call, Jobs, script


def get(job_ids: Sequence[str]) -> Call[Snapshot]:
    return Call(script("get"), to_json(list(job_ids)), _snapshot, suspects=lambda: suspects(ids=job_ids))


def create(jobs: Sequence[NewJob], *, brief: bool = False) -> Call[list[Created]]:
    shapes: dict[tuple[Any, ...], int] = {}
    arguments = []
    specs: list[bytes] = []
    for new in jobs:
        arguments.append(_new(new, shapes, specs))

    def read(answer: Answer) -> list[Created]:
        stored = Jobs(answer.blob)
        return [_created(new, made, stored, answer.now) for new, made in zip(jobs, answer.content(), strict=True)]

    return Call(
        script("create"),
        f"[[{','.join(map(codec.encode_alike, shapes))}],{to_json(arguments)},{to_json(brief)}]",
        read,
        b"".join(specs),
        lambda: suspects(
            ids=[new.id for new in jobs],
            requests=[new.request_key.hex() for new in jobs if new.request_key is not None],
        ),
    )


def _new(new: NewJob, shapes: dict[tuple[Any, ...], int], large: list[bytes]) -> list[object]:
    """A new job as creating.lua takes it; what is large comes beside it."""
    spec = codec.encode_spec(new.digest, new.submission)
    large.append(spec)
    argument: list[object] = [new.id, shapes.setdefault(codec.alike(new), len(shapes) + 1), len(spec)]
    if new.request_key is not None:
        argument.append(new.request_key.hex())
    return argument


def _created(new: NewJob, made: Sequence[Any] | int, stored: Jobs, now: int) -> Created:
    if made == _BRIEFLY_OK:
        return Created(CreateOutcome.CREATED, new.id)
    match made:
        case [position, score, queue_time]:
            state = JobState.SCHEDULED if queue_time is None else JobState.QUEUED
            standing = Standing(new.id, new.queue, state, score, 1, 1, 0, 0, now, now, queue_time, None)
            return Created(CreateOutcome.CREATED, new.id, position, standing)
        case [outcome, job_id, position, found]:
            job = stored.next(found)
            if outcome == CreateOutcome.CREATED and job is not None:  # by this very call, when it was sent before
                return Created(CreateOutcome.CREATED, job_id, position, Standing.of(job))
            return Created(CreateOutcome(outcome), job_id, position, job=job)
        case [outcome, job_id]:
            return Created(CreateOutcome(outcome), job_id)
    raise ValueError(f"not an answer to a create: {made!r}")


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
        stored = Jobs(answer.blob)
        claimed = [
            Claimed(ClaimOutcome(outcome), list(stored.every(jobs)), held) for outcome, held, jobs in content["claimed"]
        ]
        return Claims(answer.now, claimed, content["remaining"])

    return Call(
        script("claim"),
        to_json(arguments),
        read,
        suspects=lambda: suspects(
            queues=[queue], states=[JobState.QUEUED], workers=[request.worker_id for request in requests]
        ),
    )


def move(moves: Sequence[AnyMove], *, brief: bool = False) -> Call[list[Moved]]:
    """Where all are completions, each of another job, there is a shorter way."""
    completions = [each for each in moves if isinstance(each, Completion)]
    if len(completions) == len(moves) == len({each.job_id for each in moves}):
        return _complete(completions, brief=brief)
    return _move_all([each.as_move() for each in moves])


def _move_all(moves: Sequence[Move]) -> Call[list[Moved]]:
    large: list[bytes] = []
    # What many Moves of a batch have in common is sent once.
    shapes: dict[str, int] = {}
    word_shapes: dict[tuple[Any, ...], int] = {}
    arguments = []
    for each in moves:
        kept = tuple(item for item in each.changes.items() if item[0] not in _BESIDE)
        guard = each.guard
        shape = _shape(
            each.verb,
            each.to,
            each.outcome,
            each.cost,
            guard.unacknowledged,
            guard.overdue,
            "result" in each.changes,
            kept,
        )
        arguments.append([shapes.setdefault(shape, len(shapes) + 1), *_move(each, large)])
        if each.word is not None:
            arguments[-1].append(_new(each.word, word_shapes, large))

    return Call(
        script("move"),
        f"[[{','.join(shapes)}],{to_json(arguments)},[{','.join(map(codec.encode_alike, word_shapes))}]]",
        _moved_all(moves),
        b"".join(large),
        lambda: suspects(ids=[each.job_id for each in moves]),
    )


def _complete(completions: Sequence[Completion], *, brief: bool) -> Call[list[Moved]]:
    arguments = []
    results = []
    for job_id, token, result, operation in completions:
        told: object = False
        if result is not None and len(result) <= codec.SMALL_RESULT:
            told = codec.encode_result(result)
        elif result is not None:
            told = len(result)
            results.append(result)
        arguments.append((job_id, token.hex(), told, operation.hex()))
    return Call(
        script("complete"),
        to_json([brief, arguments]),
        _moved_all(completions),
        b"".join(results),
        lambda: suspects(ids=[each.job_id for each in completions]),
    )


def _moved_all(moves: Sequence[AnyMove]) -> Callable[[Answer], list[Moved]]:
    def read(answer: Answer) -> list[Moved]:
        stored = Jobs(answer.blob)
        moved = []
        for move, told in zip(moves, answer.content(), strict=True):
            if told == _BRIEFLY_OK:
                moved.append(_DONE)
                continue
            outcome, standing, *found = told
            if outcome == "ok":
                moved.append(Moved(Outcome.OK, None if standing is None else _standing(move.job_id, standing)))
            else:
                moved.append(Moved(_OUTCOMES[outcome], job=stored.next(found[0])))
        return moved

    return read


_BRIEFLY_OK: Final = 1
"""What a brief answer says of each item that went well."""

_DONE: Final = Moved(Outcome.OK)


def _standing(job_id: str, told: Sequence[Any]) -> Standing:
    queue, state, *numbers = told
    return Standing(job_id, queue, codec.STATES[state], *numbers)


@lru_cache(maxsize=256)  # nearly all are completions
def _shape(
    verb: Verb,
    to: JobState,
    outcome: AttemptOutcome | None,
    cost: Event | None,
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
            "cost": cost or False,
            "unacknowledged": unacknowledged,
            "overdue": overdue,
            "writes_result": writes_result,
            "changes": codec.encode_changes(changes),
        }
    )


def _move(move: Move, large: list[bytes]) -> Iterator[object]:
    """What is its own: id, operation, token, version, create_time, sizes of submission and result; False = none."""
    guard, changes = move.guard, move.changes
    yield move.job_id
    yield move.operation.hex()
    yield False if guard.token is None else guard.token.hex()
    yield False if guard.version is None else str(guard.version)
    yield False if guard.create_time is None else str(guard.create_time)
    for value in (changes.get("submission"), changes.get("result")):
        yield False if value is None else len(value)
        if value is not None:
            large.append(value)


def renew(renewals: Sequence[Renewal], *, brief: bool = False) -> Call[list[Renewed]]:
    arguments = [
        [
            renewal.job_id,
            renewal.token.hex(),
            codec.encode_progress_so_far(renewal.fraction, renewal.message) if renewal.has_progress else False,
        ]
        for renewal in renewals
    ]

    def read(answer: Answer) -> list[Renewed]:
        return [_renewed(renewal.job_id, *told) for renewal, told in zip(renewals, answer.content(), strict=True)]

    return Call(
        script("renew"),
        to_json([brief, arguments]),
        read,
        suspects=lambda: suspects(ids=[each.job_id for each in renewals]),
    )


def _renewed(
    job_id: str, outcome: str, remaining: int = 0, reason: str | bool = False, standing: Sequence[Any] = ()
) -> Renewed:
    if outcome != "ok":
        return Renewed(_OUTCOMES[outcome])
    stands = _standing(job_id, standing) if standing else None
    return Renewed(Outcome.OK, remaining, reason is not False, str(reason or ""), stands)


def delete(deletions: Sequence[Deletion]) -> Call[list[Outcome]]:
    return Call(
        script("delete"),
        to_json(
            [
                [each.job_id, str(each.version), each.create_time is not None and str(each.create_time)]
                for each in deletions
            ]
        ),
        lambda answer: [_OUTCOMES[outcome] for outcome in answer.content()],
        suspects=lambda: suspects(ids=[each.job_id for each in deletions]),
    )


# --- maintenance --------------------------------------------------------------------------------------------


def promote(limit: int, server: str) -> Call[int]:
    """`server` is who asks, in hex: of many that try, one is enough."""
    return Call(
        script("promote"),
        to_json([limit, server]),
        Answer.content,
        suspects=lambda: suspects(states=[JobState.SCHEDULED], is_due=True),
    )


def overdue(queues: Sequence[str], limit: int) -> Call[Snapshot]:
    return Call(
        script("overdue"),
        to_json([limit, list(queues)]),
        _snapshot,
        suspects=lambda: suspects(queues=queues, states=[JobState.IN_PROGRESS], is_due=True, expiring=True),
    )


def leased(queues: Sequence[str], longer_than: int, limit: int) -> Call[Snapshot]:
    return Call(
        script("leased"),
        to_json([str(longer_than), limit, list(queues)]),
        _snapshot,
        suspects=lambda: suspects(queues=queues, states=[JobState.IN_PROGRESS]),
    )


def purge(limit: int, server: str) -> Call[int]:
    """`server` as in `promote`."""
    return Call(
        script("purge"),
        to_json([limit, server]),
        Answer.content,
        suspects=lambda: suspects(states=sorted(ENDED), is_due=True),
    )


# --- within -------------------------------------------------------------------------------------------------


def _snapshot(answer: Answer) -> Snapshot:
    stored = Jobs(answer.blob)
    return Snapshot(answer.now, [stored.next(found) for found in answer.content()])


_BESIDE: Final = frozenset({"submission", "result"})
"""What a Move writes that is no field of the record."""

_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
