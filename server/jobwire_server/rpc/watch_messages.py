"""What a watch is asked for, and what it tells, as messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from jobwire.v1 import job_service_pb2
from jobwire_server.domain.errors import invalid
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc import validate
from jobwire_server.rpc.answers import FRAME, MARGIN, set_time, write_job
from jobwire_server.rpc.filters import job_filter
from jobwire_server.service.watch_events import (
    Event,
    JobsChanged,
    JobsRemoved,
    KeepAlive,
    SnapshotDone,
    SnapshotStarted,
)


class Watched(TypedDict, total=False):
    """Ids, or what a filter wants."""

    job_ids: list[str]
    wanted: JobFilter


def watched(request: job_service_pb2.WatchJobsRequest, limits: Limits) -> Watched:
    if not request.job_ids:
        return {"wanted": job_filter("filter", request.filter, limits)}
    if request.HasField("filter"):
        raise invalid("filter", "must not be set beside job_ids")
    validate.items("job_ids", request.job_ids, limits.batch)
    return {"job_ids": [validate.job_id(f"job_ids[{i}]", job_id) for i, job_id in enumerate(request.job_ids)]}


def watch_messages(event: Event, limit: int) -> Iterator[job_service_pb2.WatchJobsResponse]:
    """An event as one message, or, where jobs are many, as messages of at most `limit` bytes each."""
    message = job_service_pb2.WatchJobsResponse()
    match event:
        case SnapshotStarted():
            message.snapshot_started.SetInParent()
        case JobsRemoved(job_ids):
            message.removed.job_ids.extend(job_ids)
        case SnapshotDone(now):
            set_time(message.snapshot_done.server_time, now)
        case KeepAlive(now):
            set_time(message.keepalive.server_time, now)
        case JobsChanged():
            yield from _changed(event, limit)
            return
    yield message


def _changed(event: JobsChanged, limit: int) -> Iterator[job_service_pb2.WatchJobsResponse]:
    message = job_service_pb2.WatchJobsResponse()
    size = MARGIN
    for job in event.jobs:
        told = message.changed.jobs.add()
        write_job(told, job)
        # Whoever watches wants to know how a job fares; what was asked for can be long, and is known.
        told.ClearField("payload")
        told.ClearField("http")
        added = told.ByteSize() + FRAME
        if size + added > limit and size > MARGIN:
            following = job_service_pb2.WatchJobsResponse()
            following.changed.jobs.append(told)
            del message.changed.jobs[-1]
            yield message
            message, size = following, MARGIN
        size += added
    yield message
