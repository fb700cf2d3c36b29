"""The verbs about queues and workers, as calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from jobwire_server.domain import activity
from jobwire_server.domain.activity import LONG, LONGEST, NOTHING, RINGS, Ring, Tally
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.domain.queue import DEFAULT_AGEING, Queue, QueueChanges
from jobwire_server.domain.webhook import is_reserved
from jobwire_server.domain.worker import Directive, WorkerInfo, WorkerRecord
from jobwire_server.store.base import QueuePut, QueueRecord
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis.scripts import Answer, Call, script


def listed(what: Literal["queues", "workers"]) -> Call[list[str]]:
    """The names of all queues, or of all workers, ascending, but for the server's own. Sorted here, where it holds up
    one server only."""
    return Call(script("listed"), to_json(what), _names)


def _names(answer: Answer) -> list[str]:
    names = answer.blob.decode(errors="replace").split("\n") if answer.blob else []
    return sorted(name for name in names if not is_reserved(name))


# --- queues -------------------------------------------------------------------------------------------------


def put_queue(name: str, changes: QueueChanges, *, revision: int | None, create: bool) -> Call[QueuePut]:
    stored = {field: _SETTINGS[field](value) for field, value in changes.items()}
    arguments = [name, stored, False if revision is None else str(revision), create]

    def read(answer: Answer) -> QueuePut:
        outcome, record = answer.content()
        return QueuePut(Outcome(outcome), answer.now, _queue_record(record, answer.now) if record else None)

    return Call(script("put_queue"), to_json(arguments), read)


def queues(names: Sequence[str], *, lately: bool, minutes: bool) -> Call[tuple[int, list[QueueRecord]]]:
    """Those of these names that exist, in the order of the names, and when."""
    back = LONG.step * LONG.slots if minutes else LONGEST[LONG] if lately else False

    def read(answer: Answer) -> tuple[int, list[QueueRecord]]:
        records = [_queue_record(each, answer.now, lately=lately, minutes=minutes) for each in answer.content()]
        return answer.now, records

    return Call(script("queues"), to_json([list(names), back]), read)


def _number(value: Any) -> str | bool:
    return False if value is None else str(value)


_SETTINGS: Final = {
    # How each is stored; False = the default, which is not.
    "paused": lambda value: "1" if value else False,
    "ageing": lambda value: False if value == DEFAULT_AGEING else str(value),
    "retention": _number,
    "max_in_flight": _number,
}


def _queue_record(record: Sequence[Any], now: int, *, lately: bool = False, minutes: bool = False) -> QueueRecord:
    name, settings, counts, head, counted, marks = record
    paused, ageing, retention, max_in_flight, create_time, update_time, revision = settings
    created = int(create_time or 0)
    queue = Queue(
        name=name,
        paused=paused == "1",
        ageing=int(ageing) if ageing else DEFAULT_AGEING,
        retention=int(retention) if retention else None,
        max_in_flight=int(max_in_flight) if max_in_flight else None,
        create_time=created,
        update_time=int(update_time) if update_time else created,
        revision=int(revision or 0),
    )
    by_state = {state: number for state, number in zip(JobState, counts, strict=True) if number}
    tally = Tally(*(_counted(number) for number in counted))
    marked = dict(_mark(each) for each in marks or () if each)
    return QueueRecord(
        queue,
        by_state,
        int(head) if head else None,
        tally,
        activity.lately(now=now, tally=tally, marks=marked) if lately else None,
        activity.by_minute(now=now, tally=tally, marks=marked) if minutes else None,
    )


def _counted(number: str | bool) -> int:
    """A damaged one must not keep anybody from the queue."""
    return int(number) if isinstance(number, str) and number.isdecimal() else 0


def _mark(stored: str) -> tuple[tuple[Ring, int], Tally]:
    step, number, *counted = map(_counted, stored.split())
    return (_RINGS.get(step, LONG), number), Tally._make((*counted, *NOTHING)[: len(NOTHING)])


_RINGS: Final = {ring.step: ring for ring in RINGS}


# --- workers ------------------------------------------------------------------------------------------------


def beat(worker: WorkerInfo) -> Call[Directive | None]:
    said = {
        "host": worker.host,
        "pid": str(worker.pid or ""),
        "runtime": worker.runtime,
        "version": worker.version,
        "labels": to_json(worker.labels) if worker.labels else "",
        "queues": to_json(worker.queues) if worker.queues else "",
        "max_in_flight": str(worker.max_in_flight or ""),
    }
    heard = {field: value for field, value in said.items() if value}

    def read(answer: Answer) -> Directive | None:
        directive = answer.content()
        return None if directive is None else Directive(directive)

    return Call(script("beat"), to_json([worker.id, str(worker.session), heard]), read)


def seen(ids: Sequence[str]) -> Call[None]:
    return Call(script("seen"), to_json(ids), lambda _: None)


def direct(worker_id: str, directive: Directive) -> Call[bool]:
    return Call(script("direct"), to_json([worker_id, directive]), Answer.content)


def workers(ids: Sequence[str], jobs: int) -> Call[tuple[int, list[WorkerRecord]]]:
    """Those of these ids that are known, in the order of the ids, and when; with up to `jobs` of what each holds."""
    return Call(
        script("workers"),
        to_json([ids, jobs]),
        lambda answer: (answer.now, [_worker(*each) for each in answer.content()]),
    )


def _worker(id: str, held: int, held_job_ids: Any, last_beat: str, *said: Any) -> WorkerRecord:
    register_time, directive, last_seen, session, *told = said
    host, pid, runtime, version, labels, queues, max_in_flight = (each or "" for each in told)
    info = WorkerInfo(
        id=id,
        session=int(session or 0),
        host=host,
        pid=int(pid or 0),
        runtime=runtime,
        version=version,
        labels=tuple((key, value) for key, value in json.loads(labels or "[]")),
        queues=tuple(json.loads(queues or "[]")),
        max_in_flight=int(max_in_flight or 0),
    )
    return WorkerRecord(
        info,
        int(register_time or last_beat),
        int(last_beat),
        held,
        Directive(directive or Directive.NONE),
        int(last_seen or 0),
        tuple(held_job_ids),
    )
