"""A queue's settings as the services read them, and a queue as the wire tells it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from tests.rpc.reading import NOW, at, lasting, refused

from jobwire.v1 import job_pb2, queue_pb2
from jobwire.v1.queue_service_pb2 import UpdateQueueRequest
from jobwire_server.domain.job import DAY, MINUTE, SECOND, JobState
from jobwire_server.domain.limits import Limits
from jobwire_server.domain.queue import Queue, QueueChanges
from jobwire_server.rpc.queues import SETTINGS, queue_changes, queue_message
from jobwire_server.store.base import QueueRecord


def update(*paths: str, **fields: Any) -> UpdateQueueRequest:
    return UpdateQueueRequest(queue=queue_pb2.Queue(**fields), update_mask=FieldMask(paths=paths))


def changes(*paths: str, **fields: Any) -> QueueChanges:
    return queue_changes(update(*paths, **fields), Limits())


def test_without_a_mask_every_set_field_is_changed() -> None:
    assert changes(name="q", paused=True) == {"paused": True}
    assert changes(name="q", ageing=lasting(0), retention=lasting(0), max_in_flight=1) == {
        "ageing": 0,
        "retention": 0,
        "max_in_flight": 1,
    }


def test_a_masked_field_that_is_not_set_goes_back_to_its_default() -> None:
    assert changes(*SETTINGS) == {"paused": False, "ageing": MINUTE, "retention": None, "max_in_flight": None}
    assert changes("paused", name="q") == {"paused": False}


def test_the_ends_of_a_range_belong_to_it() -> None:
    full: dict[str, Any] = {"ageing": lasting(DAY), "retention": lasting(3660 * DAY), "max_in_flight": 2**32 - 1}
    assert changes(**full) == {"ageing": DAY, "retention": 3660 * DAY, "max_in_flight": 2**32 - 1}


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (update(name="q"), "update_mask"),
        (update(name="q", paused=False), "update_mask"),
        (update("name", name="q"), "update_mask"),
        (update("counts"), "update_mask"),
        (update("queue.paused", paused=True), "update_mask"),
        (update("*", paused=True), "update_mask"),
        (update("ageing", paused=True), "queue.paused"),
        (update(ageing=lasting(DAY + 1)), "queue.ageing"),
        (update(ageing=Duration(seconds=-1)), "queue.ageing"),
        (update(retention=lasting(3660 * DAY + 1)), "queue.retention"),
        (update(max_in_flight=0), "queue.max_in_flight"),
        (update("max_in_flight", max_in_flight=0), "queue.max_in_flight"),
    ],
)
def test_a_refused_change_names_the_field(request_: UpdateQueueRequest, path: str) -> None:
    refused(lambda: queue_changes(request_, Limits()), path)


OUTPUT_ONLY = [field for field in queue_pb2.Queue.DESCRIPTOR.fields if field.name not in (*SETTINGS, "name")]


@pytest.mark.parametrize("field", OUTPUT_ONLY, ids=[field.name for field in OUTPUT_ONLY])
def test_an_output_only_field_is_refused(field: FieldDescriptor) -> None:
    request = update(paused=True)
    match field.name:
        case "counts":
            request.queue.counts.add()
        case "etag":
            request.queue.etag = "1"
        case _:
            getattr(request.queue, field.name).SetInParent()
    refused(lambda: queue_changes(request, Limits()), f"queue.{field.name}")


def test_every_field_of_a_queue_reaches_the_wire() -> None:
    settings = Queue(
        name="q", paused=True, ageing=0, retention=0, max_in_flight=3, create_time=NOW, update_time=NOW + 1, revision=7
    )
    counts = {JobState.FAILED: 2, JobState.QUEUED: 1, JobState.COMPLETED: 0}
    message = queue_message(QueueRecord(settings, counts, NOW), NOW + SECOND)
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    assert (message.paused, message.max_in_flight, message.etag) == (True, 3, "7")
    assert (message.ageing, message.retention, message.oldest_waiting_age) == (lasting(0), lasting(0), lasting(SECOND))
    assert (message.create_time, message.update_time) == (at(NOW), at(NOW + 1))
    assert [(count.state, count.count) for count in message.counts] == [
        (job_pb2.JOB_STATE_QUEUED, 1),
        (job_pb2.JOB_STATE_FAILED, 2),
    ]


def test_what_a_queue_has_not_is_absent() -> None:
    message = queue_message(QueueRecord(Queue(name="q"), {}, None), NOW)
    for name in ("retention", "max_in_flight", "oldest_waiting_age"):
        assert not message.HasField(name)
    assert message.ageing == lasting(MINUTE)


def test_nobody_has_waited_for_less_than_nothing() -> None:
    message = queue_message(QueueRecord(Queue(name="q"), {JobState.QUEUED: 1}, NOW + 5), NOW)
    assert message.oldest_waiting_age == lasting(0)
    assert message.HasField("oldest_waiting_age")
