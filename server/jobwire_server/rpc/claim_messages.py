"""What a claim stream tells its worker, as messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import DecodeError

from jobwire.v1 import job_pb2, job_service_pb2
from jobwire_server.domain.job import Job
from jobwire_server.rpc.answers import FRAME, MARGIN, set_duration, set_time, write_job
from jobwire_server.service.claim_events import Assigned, Assignment, Cancel, Draining, Event, KeepAlive, Lost
from jobwire_server.service.claim_stream import ClaimStream


def claim_message(stream: ClaimStream, event: Cancel | Lost | Draining | KeepAlive) -> job_service_pb2.ClaimJobResponse:
    """Any event of a claim stream but jobs."""
    message = job_service_pb2.ClaimJobResponse()
    match event:
        case Cancel(notice):
            message.cancel.job_id = notice.job_id
            message.cancel.fence = notice.fence
            message.cancel.reason = notice.reason
        case Lost(notice):
            message.lost.job_id = notice.job_id
            message.lost.fence = notice.fence
        case Draining(reconnect_after):
            message.drain.SetInParent()
            if reconnect_after is not None:
                set_duration(message.drain.reconnect_after, reconnect_after)
        case KeepAlive():
            set_time(message.keepalive.server_time, event.now)
            message.keepalive.held = event.held
            message.keepalive.credit = event.credit
            message.keepalive.worker_id = stream.worker_id
            message.keepalive.session = stream.session
    return message


def is_readable(job: Job) -> bool:
    """What is stored of its request can be parsed."""
    try:
        write_job(job_pb2.Job(), job, readable=True)
    except DecodeError:
        return False
    return True


def claim_messages(stream: ClaimStream, event: Event, limit: int) -> Iterator[job_service_pb2.ClaimJobResponse]:
    """An event as one message, or, where jobs are many, as messages of at most `limit` bytes each; no job, no message.

    DecodeError: one of the jobs is not readable.
    """
    if not isinstance(event, Assigned):
        yield claim_message(stream, event)
        return
    message = _jobs_of(stream)
    size = MARGIN
    alike = _Alike(event.now)
    for assignment in event.assignments:
        one = message.jobs.assignments.add()
        size += alike.write(one, assignment)
        if size > limit and len(message.jobs.assignments) > 1:
            following = _jobs_of(stream)
            following.jobs.assignments.append(one)
            del message.jobs.assignments[-1]
            yield message
            message, size = following, one.ByteSize() + FRAME + MARGIN
    if message.jobs.assignments:
        yield message


def _jobs_of(stream: ClaimStream) -> job_service_pb2.ClaimJobResponse:
    message = job_service_pb2.ClaimJobResponse()
    message.jobs.worker_id = stream.worker_id
    return message


class _Alike:
    """Writes assignments. Jobs of one claim are alike in nearly everything but their id, their bodies and two times:
    what they share is written once and kept as bytes. Measured: 5 µs a job instead of 17."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._last: list[object] = []
        self._known = b""
        self._all: dict[tuple[object, ...], bytes] = {}

    def write(self, message: job_service_pb2.Assignment, assignment: Assignment) -> int:
        """Answers how many bytes it takes at most: to measure each would cost a tenth of writing it."""
        job, token, _ = assignment
        # Mostly as the one before: comparing is cheaper than hashing, since what is the same is the same object.
        shared: list[object] = [*job]
        for at in _OWN:
            shared[at] = None
        if shared != self._last:
            self._last, key = shared, tuple(shared)
            if key not in self._all:
                self._all[key] = _template(job, self._now)
            self._known = self._all[key]
        message.MergeFromString(self._known)
        told = message.job
        told.MergeFromString(job.submission)
        told.id = job.id
        told.etag = job.etag
        told.fence = message.fence = job.fence
        set_time(told.create_time, job.create_time)
        if job.queue_time is not None:
            set_time(told.queue_time, job.queue_time)
        message.token = token.hex()
        return len(self._known) + len(job.submission) + len(job.id) + _OWN_BYTES


_OWN_BYTES: Final = 160
"""Of what is a job's own in its assignment, beside its id: etag, token, two fences, two times, and tags and lengths."""

_OWN: Final = [
    Job._fields.index(field)
    for field in ("id", "submission", "fence", "create_time", "queue_time", "token", "last_operation")
]
"""What is never shared, or not told."""


def _template(job: Job, now: int) -> bytes:
    """The assignment of a job without what is its own."""
    message = job_service_pb2.Assignment()
    write_job(message.job, job._replace(submission=b""), readable=True)
    for field in ("id", "etag", "fence", "create_time", "queue_time"):
        message.job.ClearField(field)
    remaining = max(job.score - now, 0)
    set_duration(message.lease_remaining, remaining)
    if not job.acknowledged:
        set_duration(message.acknowledge_within, remaining)
    return message.SerializeToString()
