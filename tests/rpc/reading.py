"""What tests of reading requests and writing answers share: a reader, jobs, and short names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobwire_server.domain.change import token_digest
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import (
    SECOND,
    Job,
    JobState,
    NewJob,
)
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.convert import Reader

NOW = 1_700_000_000 * SECOND
TOKEN = "00112233445566778899aabbccddeeff"
DIGEST = token_digest(bytes.fromhex(TOKEN))
reader = Reader(Limits(), now=lambda: NOW)

BIG = "x" * 257
KIB = 1024

CreateRequest = job_service_pb2.CreateJobRequest
UpdateRequest = job_service_pb2.UpdateJobRequest
ClaimRequest = job_service_pb2.ClaimJobRequest
Beat = worker_service_pb2.HeartbeatRequest
Recover = job_service_pb2.RecoverStuckJobsRequest


def at(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // SECOND, nanos=micros % SECOND * 1000)


def lasting(micros: int) -> Duration:
    return Duration(seconds=micros // SECOND, nanos=micros % SECOND * 1000)


def full_submission() -> job_pb2.Job:
    """Every field that a create may set today."""
    values = [job_pb2.HttpValue(value="a"), job_pb2.HttpValue(value=""), job_pb2.HttpValue()]
    return job_pb2.Job(
        id="job-1",
        queue="mail",
        type="email.send",
        user_id="ünï ✓ \U0001f600",
        payload=job_pb2.Payload(content_type="application/json", text='{"a": 1}'),
        priority=2,
        labels={"b": "2", "a": "1"},
        http=job_pb2.HttpRequest(
            headers=[job_pb2.HttpValues(name="X-Y", values=values), job_pb2.HttpValues(name="X-Y")],
            query_params=[job_pb2.HttpValues(name="q", values=values)],
            route_params={"id": "7"},
        ),
        retry_policy=job_pb2.RetryPolicy(
            max_retries=0,
            initial_delay=lasting(0),
            multiplier=1.5,
            max_delay=lasting(90_000_001),
            jitter=0.0,
            max_interruptions=0,
        ),
        execution_timeout=lasting(1),
        retention=lasting(0),
        schedule_time=at(NOW + 5),
        expire_time=at(NOW + 6),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        webhook=job_pb2.Webhook(url="https://example.org/hook?a=b", events=[job_pb2.WEBHOOK_EVENT_FAILED]),
    )


def stored(new: NewJob, **changes: Any) -> Job:
    """A new job as a store would have it."""
    job = Job(
        id=new.id,
        queue=new.queue,
        type=new.type,
        user_id=new.user_id,
        priority=new.priority,
        submission=new.submission,
        retry=new.retry,
        execution_timeout=new.execution_timeout,
        retention=new.retention,
        schedule_time=new.schedule_time,
        expire_time=new.expire_time,
        webhook_events=new.webhook_events,
        state=JobState.QUEUED,
        score=NOW,
        version=1,
        revision=1,
        last_operation=b"",
        create_time=NOW,
        update_time=NOW,
        queue_time=NOW,
        start_time=None,
        finish_time=None,
        attempt=0,
        retry_count=0,
        interruption_count=0,
        release_count=0,
        return_count=0,
        token=None,
        fence=0,
        worker_id="",
        claim_time=None,
        acknowledged=False,
        lease_duration=0,
        lease_expire_time=None,
        limit_time=None,
        outcome=None,
        end_time=None,
        progress=None,
        result=None,
        error=None,
        history=(),
        cancel_requested=False,
        cancel_reason="",
    )
    return job._replace(**changes)


def refused(read: Callable[[], object], path: str, reason: Reason = Reason.INVALID_FIELD) -> None:
    with pytest.raises(JobwireError) as caught:
        read()
    assert (caught.value.reason, caught.value.field) == (reason, path)
    assert path in caught.value.message
