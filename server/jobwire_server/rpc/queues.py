"""Queues on the wire, both ways."""

from __future__ import annotations

from typing import Final

from jobwire.v1 import job_pb2, queue_pb2, queue_service_pb2
from jobwire_server.domain.errors import invalid
from jobwire_server.domain.job import JobState
from jobwire_server.domain.limits import NAME, Limits
from jobwire_server.domain.queue import DEFAULT_AGEING, MAX_AGEING, QueueChanges
from jobwire_server.rpc import page_token, validate
from jobwire_server.rpc.answers import STATES, set_duration, set_time
from jobwire_server.store.base import QueueRecord

SETTINGS: Final = ("paused", "ageing", "retention", "max_in_flight")
_LISTING: Final = b"jobwire.v1.ListQueuesRequest"


def queue_message(record: QueueRecord, now: int) -> queue_pb2.Queue:
    settings = record.settings
    message = queue_pb2.Queue(
        name=settings.name,
        paused=settings.paused,
        max_in_flight=settings.max_in_flight,
        counts=state_counts(record.counts),
        etag=settings.etag,
    )
    set_duration(message.ageing, settings.ageing)
    if settings.retention is not None:
        set_duration(message.retention, settings.retention)
    if record.head_queue_time is not None:
        # It can lie ahead: queue times rise even while the clock stands still.
        set_duration(message.oldest_waiting_age, max(now - record.head_queue_time, 0))
    set_time(message.create_time, settings.create_time)
    set_time(message.update_time, settings.update_time)
    return message


def state_counts(counts: dict[JobState, int]) -> list[job_pb2.StateCount]:
    """In the order of JobState, without the states that have none."""
    return [job_pb2.StateCount(state=STATES[state], count=counts[state]) for state in JobState if counts.get(state, 0)]


def queue_changes(request: queue_service_pb2.UpdateQueueRequest, limits: Limits) -> QueueChanges:
    """The settings to write; one that is named but not set goes back to its default."""
    queue = request.queue
    changes: QueueChanges = {}
    for name in _changed(request):
        match name:
            case "paused":
                changes["paused"] = queue.paused
            case "ageing":
                changes["ageing"] = (
                    validate.duration("queue.ageing", queue.ageing, 0, MAX_AGEING)
                    if queue.HasField("ageing")
                    else DEFAULT_AGEING
                )
            case "retention":
                changes["retention"] = (
                    validate.duration("queue.retention", queue.retention, 0, limits.max_retention)
                    if queue.HasField("retention")
                    else None
                )
            case "max_in_flight":
                changes["max_in_flight"] = _ceiling(queue)
    return changes


def queues_start(request: queue_service_pb2.ListQueuesRequest) -> str:
    """The name behind which this page begins."""
    if not request.page_token:
        return ""
    match page_token.unseal("page_token", request.page_token, _LISTING):
        case [str(name)] if NAME.fullmatch(name):
            return name
    raise page_token.refused("page_token")


def queues_token(last: str) -> str:
    return page_token.seal(_LISTING, [last])


def _ceiling(queue: queue_pb2.Queue) -> int | None:
    if not queue.HasField("max_in_flight"):
        return None
    if not queue.max_in_flight:
        raise invalid("queue.max_in_flight", "must be from 1: to stop a queue, set paused")
    return queue.max_in_flight


def _changed(request: queue_service_pb2.UpdateQueueRequest) -> frozenset[str]:
    """Whatever is set must be meant: nothing that was sent is passed over in silence."""
    given = {field.name for field, _ in request.queue.ListFields()} - {"name"}
    for name in sorted(given.difference(SETTINGS)):
        raise invalid(f"queue.{name}", "is output only: the server sets it")
    masked = frozenset(request.update_mask.paths)
    if not masked.issubset(SETTINGS):
        raise invalid("update_mask", f"may name {', '.join(SETTINGS)} and nothing else")
    if not masked and not given:
        raise invalid("update_mask", "there is nothing to change: it is empty, and so is queue")
    for name in sorted(given - masked if masked else ()):
        raise invalid(f"queue.{name}", "is set, but not named in update_mask")
    return masked or frozenset(given)
