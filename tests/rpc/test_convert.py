from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from jobwire.v1 import job_pb2, job_service_pb2, worker_pb2, worker_service_pb2
from jobwire_server.domain.change import Complete, Edit, Fail, Release, Report, token_digest
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import (
    DAY,
    HOUR,
    SECOND,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    NewJob,
    Progress,
    RetryPolicy,
)
from jobwire_server.domain.limits import NAME, Limits
from jobwire_server.rpc import validate
from jobwire_server.rpc.answers import (
    claim_messages,
    got,
    job_message,
    lease_status,
    set_duration,
    set_time,
    write_job,
    write_preview,
)
from jobwire_server.rpc.convert import EDITABLE, SUBMITTED, Reader
from jobwire_server.rpc.ids import JobIds
from jobwire_server.service.claim_events import Assigned, Assignment
from jobwire_server.service.claim_stream import ClaimStream
from jobwire_server.store.base import Renewed

NOW = 1_700_000_000 * SECOND
TOKEN = "00112233445566778899aabbccddeeff"
reader = Reader(Limits(), now=lambda: NOW)

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
    return replace(job, **changes)


# --- there and back ------------------------------------------------------------------------------------------


def test_every_submitted_field_comes_back_as_it_was_sent() -> None:
    sent = full_submission()
    assert {field.name for field, _ in sent.ListFields()} == SUBMITTED - {"webhook"}

    new = reader.new_job(CreateRequest(job=sent))
    answered = job_message(stored(new))

    for name in SUBMITTED - {"webhook"}:
        assert answered.HasField(cast("Any", name)) if sent.DESCRIPTOR.fields_by_name[name].has_presence else True
        assert getattr(answered, name) == getattr(sent, name), name


def test_every_field_of_a_running_job_reaches_the_wire() -> None:
    error = JobError("E", "went wrong", (("k", "v"),), "w0")
    past = Attempt(3, "w0", NOW - 9, NOW - 8, AttemptOutcome.FAILED, b"t", error)
    job = stored(
        reader.new_job(CreateRequest(job=full_submission())),
        state=JobState.IN_PROGRESS,
        score=NOW + 7,
        version=12,
        revision=4,
        attempt=4,
        fence=99,
        worker_id="w1",
        claim_time=NOW - 1,
        acknowledged=True,
        start_time=NOW - 9,
        retry_count=1,
        interruption_count=2,
        progress=Progress(0.0, "half", NOW - 1),
        error=error,
        history=(past,),
        cancel_requested=True,
        cancel_reason="because",
        result=job_pb2.Payload(data=b"\0").SerializeToString(),
    )
    message = job_message(job)

    only_once_ended = {"finish_time", "purge_time"}
    not_built = {"webhook"}
    missing = {field.name for field in message.DESCRIPTOR.fields} - {field.name for field, _ in message.ListFields()}
    assert missing == only_once_ended | not_built
    assert message.state == job_pb2.JOB_STATE_IN_PROGRESS
    assert (message.version, message.etag, message.fence, message.attempt) == (12, "4", 99, 4)
    assert message.lease == job_pb2.Lease(worker_id="w1", expire_time=at(NOW + 7), acknowledged=True)
    assert message.progress == job_pb2.Progress(fraction=0.0, message="half", update_time=at(NOW - 1))
    told = job_pb2.JobError(code="E", message="went wrong", details={"k": "v"}, worker_id="w0")
    assert message.error == told
    assert list(message.attempts) == [
        job_pb2.Attempt(
            number=3,
            worker_id="w0",
            start_time=at(NOW - 9),
            end_time=at(NOW - 8),
            outcome=job_pb2.ATTEMPT_OUTCOME_FAILED,
            error=told,
        ),
        job_pb2.Attempt(number=4, worker_id="w1", start_time=at(NOW - 1), outcome=job_pb2.ATTEMPT_OUTCOME_RUNNING),
    ]
    assert message.result == job_pb2.Payload(data=b"\0")


def test_an_ended_job_tells_its_end_and_purge() -> None:
    job = stored(NewJob(id="j"), state=JobState.COMPLETED, score=NOW + DAY, finish_time=NOW, result=b"")
    message = job_message(job)
    assert (message.finish_time, message.purge_time) == (at(NOW), at(NOW + DAY))
    assert message.HasField("result")
    assert not message.HasField("lease")


def test_every_state_and_outcome_has_its_word_on_the_wire() -> None:
    for state in JobState:
        assert (
            job_pb2.JobState.Name(job_message(stored(NewJob(id="j"), state=state)).state) == f"JOB_STATE_{state.name}"
        )
    history = tuple(Attempt(i, "w", 1, 2, outcome, b"") for i, outcome in enumerate(AttemptOutcome))
    names = [
        job_pb2.AttemptOutcome.Name(attempt.outcome)
        for attempt in job_message(stored(NewJob(id="j"), history=history)).attempts
    ]
    assert names == [f"ATTEMPT_OUTCOME_{outcome.name}" for outcome in AttemptOutcome]


def test_without_bodies_and_history_a_job_is_small() -> None:
    job = stored(
        reader.new_job(CreateRequest(job=full_submission())),
        result=b"",
        error=JobError("E", "x" * 8000),
        history=(Attempt(1, "w", 1, 2, AttemptOutcome.FAILED, b"", JobError("E", "x" * 8000)),),
    )
    message = job_pb2.Job()
    write_job(message, job, bodies=False, history=False)
    for name in ("payload", "http", "labels", "result", "attempts", "error"):
        assert not getattr(message, name) or not message.HasField(cast("Any", name)), name
    assert message.ByteSize() < 300


def test_an_empty_payload_keeps_which_body_was_set() -> None:
    for payload in (job_pb2.Payload(), job_pb2.Payload(data=b""), job_pb2.Payload(text="")):
        new = reader.new_job(CreateRequest(job=job_pb2.Job(payload=payload)))
        answered = job_message(stored(new))
        assert answered.HasField("payload")
        assert answered.payload.WhichOneof("body") == payload.WhichOneof("body")


def test_a_preview_is_the_job_as_it_would_be() -> None:
    later, at_once = job_pb2.Job(), job_pb2.Job()
    write_preview(later, reader.new_job(CreateRequest(job=full_submission())), NOW)
    assert later.state == job_pb2.JOB_STATE_SCHEDULED
    assert not later.HasField("queue_time")
    write_preview(at_once, reader.new_job(CreateRequest()), NOW)
    assert at_once.state == job_pb2.JOB_STATE_QUEUED
    assert (at_once.queue, at_once.priority, at_once.create_time) == ("default", 5, at(NOW))


@given(st.integers(0, 253_402_300_799_999_999), st.integers(0, 999))
def test_times_round_trip_to_the_microsecond(micros: int, rest: int) -> None:
    message = Timestamp()
    set_time(message, micros)
    message.nanos += rest
    assert validate.timestamp("t", message, micros) == micros
    assert message.ToMicroseconds() == micros


@given(st.integers(0, 3660 * DAY), st.integers(0, 999))
def test_durations_round_trip_to_the_microsecond(micros: int, rest: int) -> None:
    message = Duration()
    set_duration(message, micros)
    message.nanos += rest
    assert validate.duration("d", message, micros, micros) == micros
    assert message.ToMicroseconds() == micros


def test_zero_is_present_and_not_the_same_as_absent() -> None:
    message = job_pb2.Job()
    set_duration(message.retention, 0)
    assert message.HasField("retention")
    assert reader.new_job(CreateRequest(job=job_pb2.Job(retention=lasting(0)))).retention == 0
    assert reader.new_job(CreateRequest()).retention is None


# --- creates -------------------------------------------------------------------------------------------------


def test_an_empty_create_gets_every_default() -> None:
    new = reader.new_job(CreateRequest())
    assert replace(new, id="", digest=b"") == NewJob(id="", id_given=False)
    assert new.retry == RetryPolicy()


def test_the_digest_is_of_the_request_before_defaults() -> None:
    def digest(**fields: Any) -> bytes:
        return reader.new_job(CreateRequest(job=job_pb2.Job(**fields))).digest

    assert digest() == digest()
    assert digest() != digest(priority=5)
    assert digest(labels={"a": "1", "b": "2"}) == digest(labels={"b": "2", "a": "1"})
    sent = full_submission()
    expected = hashlib.sha256(sent.SerializeToString(deterministic=True)).digest()
    assert reader.new_job(CreateRequest(job=sent)).digest == expected


def test_a_request_id_is_one_principals_own() -> None:
    def key(principal: str, request_id: str) -> bytes | None:
        return reader.new_job(CreateRequest(request_id=request_id), principal=principal).request_key

    assert key("a", "") is None
    assert key("a", "r") == key("a", "r") == hashlib.sha256(b"a\0r").digest()
    assert key("a", "r") != key("b", "r")
    assert key("a", "br") != key("ab", "r")


def test_what_the_server_does_not_know_is_digested_and_not_stored() -> None:
    unknown = b"\x82\x7d\x03abc"  # field 2000, three bytes
    request = CreateRequest(job=job_pb2.Job.FromString(job_pb2.Job(type="t").SerializeToString() + unknown))
    request.job.payload.MergeFromString(unknown)
    new = reader.new_job(request)
    assert b"abc" not in new.submission
    assert new.digest != reader.new_job(CreateRequest(job=job_pb2.Job(type="t"))).digest


def test_job_ids_are_rising_uuids_of_version_seven() -> None:
    make = JobIds().make
    made = [make() for _ in range(10_000)]
    assert made == sorted(set(made))
    parsed = uuid.UUID(made[0])
    assert (str(parsed), parsed.version, parsed.variant) == (made[0], 7, uuid.RFC_4122)
    assert reader.new_job(CreateRequest()).id_given is False


def job(**fields: Any) -> CreateRequest:
    return CreateRequest(job=job_pb2.Job(**fields))


def retry(**fields: Any) -> CreateRequest:
    return job(retry_policy=job_pb2.RetryPolicy(**fields))


def headers(*values: job_pb2.HttpValues) -> CreateRequest:
    return job(http=job_pb2.HttpRequest(headers=values))


BIG = "x" * 257
KIB = 1024

REFUSED_CREATES: list[tuple[CreateRequest, str, Reason]] = [
    (job(id="-x"), "job.id", Reason.INVALID_FIELD),
    (job(id="x" * 129), "job.id", Reason.INVALID_FIELD),
    (job(id="a\n"), "job.id", Reason.INVALID_FIELD),
    (job(queue="a b"), "job.queue", Reason.INVALID_FIELD),
    (job(queue="x" * 65), "job.queue", Reason.INVALID_FIELD),
    (job(type=BIG), "job.type", Reason.TOO_LARGE),
    (job(type="a\0b"), "job.type", Reason.INVALID_FIELD),
    (job(user_id="é" * 129), "job.user_id", Reason.TOO_LARGE),
    (CreateRequest(request_id=BIG), "request_id", Reason.TOO_LARGE),
    (CreateRequest(request_id="\0"), "request_id", Reason.INVALID_FIELD),
    (job(priority=0), "job.priority", Reason.INVALID_FIELD),
    (job(priority=11), "job.priority", Reason.INVALID_FIELD),
    (job(payload=job_pb2.Payload(data=b"x" * (256 * KIB + 1))), "job.payload.data", Reason.TOO_LARGE),
    (job(payload=job_pb2.Payload(text="é" * (128 * KIB + 1))), "job.payload.text", Reason.TOO_LARGE),
    (job(payload=job_pb2.Payload(text="\0")), "job.payload.text", Reason.INVALID_FIELD),
    (job(payload=job_pb2.Payload(content_type="x" * 129)), "job.payload.content_type", Reason.TOO_LARGE),
    (job(labels={str(i): "" for i in range(33)}), "job.labels", Reason.TOO_LARGE),
    (job(labels={"k": "x" * 256}), "job.labels", Reason.TOO_LARGE),
    (job(labels={"": "x"}), "job.labels", Reason.INVALID_FIELD),
    (job(labels={"k": "\0"}), "job.labels", Reason.INVALID_FIELD),
    (headers(job_pb2.HttpValues()), "job.http.headers[0].name", Reason.INVALID_FIELD),
    (
        headers(job_pb2.HttpValues(name="a"), job_pb2.HttpValues(name="b", values=[job_pb2.HttpValue(value="\0")])),
        "job.http.headers[1].values",
        Reason.INVALID_FIELD,
    ),
    (headers(job_pb2.HttpValues(name="x" * (16 * KIB + 1))), "job.http", Reason.TOO_LARGE),
    (
        headers(job_pb2.HttpValues(name="x", values=[job_pb2.HttpValue()] * (16 * KIB))),
        "job.http",
        Reason.TOO_LARGE,
    ),
    (job(http=job_pb2.HttpRequest(route_params={"": ""})), "job.http.route_params", Reason.INVALID_FIELD),
    (job(webhook=job_pb2.Webhook()), "job.webhook", Reason.NOT_BUILT),
    (retry(max_retries=1001), "job.retry_policy.max_retries", Reason.INVALID_FIELD),
    (retry(max_interruptions=1001), "job.retry_policy.max_interruptions", Reason.INVALID_FIELD),
    (retry(multiplier=0.99), "job.retry_policy.multiplier", Reason.INVALID_FIELD),
    (retry(multiplier=math.inf), "job.retry_policy.multiplier", Reason.INVALID_FIELD),
    (retry(jitter=1.01), "job.retry_policy.jitter", Reason.INVALID_FIELD),
    (retry(jitter=math.nan), "job.retry_policy.jitter", Reason.INVALID_FIELD),
    (retry(initial_delay=Duration(seconds=-1)), "job.retry_policy.initial_delay", Reason.INVALID_FIELD),
    (retry(max_delay=lasting(366 * DAY + 1)), "job.retry_policy.max_delay", Reason.INVALID_FIELD),
    (job(execution_timeout=lasting(0)), "job.execution_timeout", Reason.INVALID_FIELD),
    (job(execution_timeout=Duration(seconds=1, nanos=-1)), "job.execution_timeout", Reason.INVALID_FIELD),
    (job(execution_timeout=Duration(nanos=-1)), "job.execution_timeout", Reason.INVALID_FIELD),
    (job(retention=lasting(3660 * DAY + 1)), "job.retention", Reason.INVALID_FIELD),
    (job(schedule_time=Timestamp(seconds=-1)), "job.schedule_time", Reason.INVALID_FIELD),
    (job(schedule_time=Timestamp(nanos=1_000_000_000)), "job.schedule_time", Reason.INVALID_FIELD),
    (job(schedule_time=at(NOW + 36_525 * DAY + 1)), "job.schedule_time", Reason.INVALID_FIELD),
    (job(expire_time=at(NOW)), "job.expire_time", Reason.INVALID_FIELD),
    (job(expire_time=at(NOW + 2), schedule_time=at(NOW + 2)), "job.expire_time", Reason.INVALID_FIELD),
]


def refused(read: Callable[[], object], path: str, reason: Reason = Reason.INVALID_FIELD) -> None:
    with pytest.raises(JobwireError) as caught:
        read()
    assert (caught.value.reason, caught.value.field) == (reason, path)
    assert path in caught.value.message


@pytest.mark.parametrize(
    ("request_", "path", "reason"),
    REFUSED_CREATES,
    ids=[f"{i}-{path}" for i, (_, path, _) in enumerate(REFUSED_CREATES)],
)
def test_a_refused_create_names_the_field(request_: CreateRequest, path: str, reason: Reason) -> None:
    refused(lambda: reader.new_job(request_), path, reason)


OUTPUT_ONLY = [field for field in job_pb2.Job.DESCRIPTOR.fields if field.name not in SUBMITTED]


@pytest.mark.parametrize("field", OUTPUT_ONLY, ids=[field.name for field in OUTPUT_ONLY])
def test_a_create_or_edit_that_sets_an_output_only_field_is_refused(field: FieldDescriptor) -> None:
    message = job_pb2.Job()
    value = getattr(message, field.name)
    if field.name == "attempts":
        message.attempts.add()
    elif field.message_type is not None:
        value.SetInParent()
    else:
        setattr(message, field.name, "x" if isinstance(value, str) else 1)
    refused(lambda: reader.new_job(CreateRequest(job=message)), f"job.{field.name}")
    edit = UpdateRequest(job_id="j", edit=job_service_pb2.EditJob(job=message))
    refused(lambda: reader.change(edit), f"edit.job.{field.name}")


@pytest.mark.parametrize("priority", [1, 10])
def test_the_ends_of_a_range_belong_to_it(priority: int) -> None:
    assert reader.new_job(job(priority=priority)).priority == priority
    assert reader.new_job(job(schedule_time=at(NOW + 36_525 * DAY))).schedule_time == NOW + 36_525 * DAY
    assert len(reader.new_job(job(type="x" * 256)).type) == 256


# --- changes -------------------------------------------------------------------------------------------------

DIGEST = token_digest(bytes.fromhex(TOKEN))


def change(token: str = TOKEN, **fields: Any) -> UpdateRequest:
    return UpdateRequest(job_id="j", token=token, **fields)


def test_a_complete_carries_the_serialized_result() -> None:
    result = job_pb2.Payload(content_type="t", data=b"ok")
    got = reader.change(change(complete=job_service_pb2.CompleteJob(result=result)))
    assert isinstance(got, Complete)
    assert (got.job_id, got.token) == ("j", DIGEST)
    assert got.result is not None
    assert job_pb2.Payload.FromString(got.result) == result
    nothing = reader.change(change(complete=job_service_pb2.CompleteJob()))
    assert nothing == Complete(job_id="j", token=DIGEST, result=None)


def test_progress_and_release_are_read_whole() -> None:
    progress = job_service_pb2.ReportProgress(fraction=0.0, message="m")
    assert reader.change(change(progress=progress)) == Report(job_id="j", token=DIGEST, fraction=0.0, message="m")
    assert reader.change(change(progress=job_service_pb2.ReportProgress())) == Report(job_id="j", token=DIGEST)
    release = job_service_pb2.ReleaseJob(delay=lasting(5))
    assert reader.change(change(release=release)) == Release(job_id="j", token=DIGEST, delay=5)


def fail(**fields: Any) -> Fail:
    got = reader.change(change(fail=job_service_pb2.FailJob(**fields)))
    assert isinstance(got, Fail)
    return got


def test_a_fail_is_read_whole() -> None:
    error = job_pb2.JobError(code="E", message="m", details={"b": "2", "a": "1"})
    assert fail(error=error, permanent=True, retry_delay=lasting(0)) == Fail(
        job_id="j",
        token=DIGEST,
        error=JobError("E", "m", (("a", "1"), ("b", "2"))),
        permanent=True,
        retry_delay=0,
    )
    assert fail().retry_delay is None


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    st.integers(1, 400),
)
def test_a_failure_of_any_size_is_kept_and_cut_to_the_limit(message: str, code: str, times: int) -> None:
    details = {f"{i}": message * 3 for i in range(5)}
    error = job_pb2.JobError(code=code * 20, message=message * times, details=details)
    got = fail(error=error).error
    size = len(got.message.encode()) + sum(len(k.encode()) + len(v.encode()) for k, v in got.details)
    assert size <= 8 * KIB
    assert len(got.code.encode()) <= 256
    assert "\0" not in got.message + got.code
    assert (message * times).replace("\0", "␀").startswith(got.message)


def test_a_long_message_leaves_room_for_details_and_the_other_way_round() -> None:
    both = fail(error=job_pb2.JobError(message="m" * 9000, details={"stack": "s" * 9000})).error
    assert (len(both.message), len(both.details[0][1])) == (4 * KIB, 4 * KIB - len("stack"))
    message = fail(error=job_pb2.JobError(message="m" * 9000, details={"stack": "s"})).error
    assert message.details == (("stack", "s"),)
    assert len(message.message) == 8 * KIB - len("stacks")


@pytest.mark.parametrize(
    ("request_", "path", "reason"),
    [
        (UpdateRequest(job_id="j", token=TOKEN), "change", Reason.INVALID_FIELD),
        (UpdateRequest(complete=job_service_pb2.CompleteJob(), token=TOKEN), "job_id", Reason.INVALID_FIELD),
        (change("", complete=job_service_pb2.CompleteJob()), "token", Reason.LEASE_REQUIRED),
        (change("", fail=job_service_pb2.FailJob()), "token", Reason.LEASE_REQUIRED),
        (change("", progress=job_service_pb2.ReportProgress()), "token", Reason.LEASE_REQUIRED),
        (change("", release=job_service_pb2.ReleaseJob()), "token", Reason.LEASE_REQUIRED),
        (change(TOKEN.upper(), release=job_service_pb2.ReleaseJob()), "token", Reason.INVALID_FIELD),
        (change(TOKEN[:-1], release=job_service_pb2.ReleaseJob()), "token", Reason.INVALID_FIELD),
        (change(TOKEN + "\n", release=job_service_pb2.ReleaseJob()), "token", Reason.INVALID_FIELD),
        (
            change(complete=job_service_pb2.CompleteJob(result=job_pb2.Payload(data=b"x" * (256 * KIB + 1)))),
            "complete.result.data",
            Reason.TOO_LARGE,
        ),
        (
            change(fail=job_service_pb2.FailJob(retry_delay=Duration(seconds=-1))),
            "fail.retry_delay",
            Reason.INVALID_FIELD,
        ),
        (
            change(fail=job_service_pb2.FailJob(error=job_pb2.JobError(worker_id="w"))),
            "fail.error.worker_id",
            Reason.INVALID_FIELD,
        ),
        (
            change(progress=job_service_pb2.ReportProgress(fraction=math.nan)),
            "progress.fraction",
            Reason.INVALID_FIELD,
        ),
        (change(progress=job_service_pb2.ReportProgress(message=BIG)), "progress.message", Reason.TOO_LARGE),
        (
            change(release=job_service_pb2.ReleaseJob(delay=lasting(367 * DAY))),
            "release.delay",
            Reason.INVALID_FIELD,
        ),
    ],
)
def test_a_refused_change_names_the_field(request_: UpdateRequest, path: str, reason: Reason) -> None:
    refused(lambda: reader.change(request_), path, reason)


# --- edits ---------------------------------------------------------------------------------------------------


def edit(*paths: str, etag: str = "", **fields: Any) -> UpdateRequest:
    body = job_service_pb2.EditJob(job=job_pb2.Job(**fields), update_mask=FieldMask(paths=paths), etag=etag)
    return UpdateRequest(job_id="j", edit=body)


def edited(*paths: str, etag: str = "", **fields: Any) -> Edit:
    got = reader.change(edit(*paths, etag=etag, **fields))
    assert isinstance(got, Edit)
    return got


def test_without_a_mask_every_set_field_is_edited() -> None:
    got = edited(id="j", priority=3, schedule_time=at(5), etag="7")
    assert got.changes == {"priority": 3, "schedule_time": 5}
    assert (got.etag, got.rewrite, got.payload) == ("7", None, False)


def test_a_masked_field_that_is_not_set_goes_back_to_its_default() -> None:
    got = edited(*EDITABLE)
    assert got.changes == {
        "priority": 5,
        "schedule_time": None,
        "expire_time": None,
        "retention": None,
        "retry": RetryPolicy(),
    }
    before = full_submission()
    submission = job_pb2.Job(payload=before.payload, http=before.http, labels=before.labels)
    assert got.rewrite is not None
    assert job_pb2.Job.FromString(got.rewrite(submission.SerializeToString())) == job_pb2.Job(http=before.http)


def test_the_rewrite_replaces_whole_parts_and_can_run_again() -> None:
    before = job_pb2.Job(payload=job_pb2.Payload(content_type="old", text="x"), labels={"a": "1", "b": "2"})
    got = edited(labels={"c": "3"}, payload=job_pb2.Payload(data=b"new"))
    assert got.payload is True
    assert got.rewrite is not None
    after = got.rewrite(before.SerializeToString())
    assert job_pb2.Job.FromString(after) == job_pb2.Job(payload=job_pb2.Payload(data=b"new"), labels={"c": "3"})
    assert got.rewrite(after) == after
    only_labels = edited("labels")
    assert only_labels.payload is False
    assert only_labels.rewrite is not None
    assert job_pb2.Job.FromString(only_labels.rewrite(before.SerializeToString())) == job_pb2.Job(
        payload=before.payload
    )


@pytest.mark.parametrize(
    ("request_", "path", "reason"),
    [
        (edit(), "edit.update_mask", Reason.INVALID_FIELD),
        (edit("queue"), "edit.update_mask", Reason.INVALID_FIELD),
        (edit("retry_policy.jitter"), "edit.update_mask", Reason.INVALID_FIELD),
        (edit("*"), "edit.update_mask", Reason.INVALID_FIELD),
        (edit(queue="q"), "edit.job.queue", Reason.INVALID_FIELD),
        (edit(webhook=job_pb2.Webhook()), "edit.job.webhook", Reason.NOT_BUILT),
        (edit("priority", priority=1, retention=lasting(1)), "edit.job.retention", Reason.INVALID_FIELD),
        (edit(id="k", priority=1), "edit.job.id", Reason.INVALID_FIELD),
        (edit(priority=0), "edit.job.priority", Reason.INVALID_FIELD),
        (edit(labels={"k": "x" * 256}), "edit.job.labels", Reason.TOO_LARGE),
        (edit(payload=job_pb2.Payload(text="\0")), "edit.job.payload.text", Reason.INVALID_FIELD),
        (edit(retry_policy=job_pb2.RetryPolicy(jitter=2)), "edit.job.retry_policy.jitter", Reason.INVALID_FIELD),
        (edit(expire_time=at(3), schedule_time=at(3)), "edit.job.expire_time", Reason.INVALID_FIELD),
        (edit(priority=1, etag="<script>"), "edit.etag", Reason.INVALID_FIELD),
        (UpdateRequest(job_id="j", token=TOKEN, edit=job_service_pb2.EditJob()), "token", Reason.INVALID_FIELD),
    ],
)
def test_a_refused_edit_names_the_field(request_: UpdateRequest, path: str, reason: Reason) -> None:
    refused(lambda: reader.change(request_), path, reason)


# --- workers -------------------------------------------------------------------------------------------------


def test_an_empty_claim_gets_every_default() -> None:
    spec = reader.claim(ClaimRequest())
    assert spec.worker.id.startswith("anonymous-")
    assert spec.worker.session == 0
    assert spec.queues == spec.worker.queues == ("default",)
    assert (spec.max_in_flight, spec.max_jobs, spec.wait_timeout) == (1, 0, None)
    assert (spec.lease_duration, spec.delivery_timeout) == (30 * SECOND, 10 * SECOND)


def test_give_me_one_needs_no_acknowledgment() -> None:
    assert reader.claim(ClaimRequest(max_jobs=1)).delivery_timeout == 0
    assert reader.claim(ClaimRequest(max_jobs=1, delivery_timeout=lasting(5))).delivery_timeout == 5
    assert reader.claim(ClaimRequest(delivery_timeout=lasting(0))).delivery_timeout == 0


def test_a_claim_is_read_whole() -> None:
    worker = worker_pb2.WorkerIdentity(
        id="w", session=7, labels={"z": "1"}, host="h", pid=9, runtime="go", version="v1"
    )
    spec = reader.claim(
        ClaimRequest(
            worker=worker,
            queues=["b", "a", "b"],
            max_in_flight=20,
            lease_duration=lasting(HOUR),
            wait_timeout=lasting(SECOND),
            max_jobs=3,
        )
    )
    assert spec.queues == ("b", "a")
    assert (spec.worker.id, spec.worker.session, spec.worker.labels) == ("w", 7, (("z", "1"),))
    assert (spec.worker.host, spec.worker.pid, spec.worker.runtime, spec.worker.version) == ("h", 9, "go", "v1")
    assert (spec.max_in_flight, spec.lease_duration, spec.wait_timeout, spec.max_jobs) == (20, HOUR, SECOND, 3)


@pytest.mark.parametrize("host", ["web-1.example.com", "ünïcode häst", "-._", "x" * 200, ""])
def test_a_worker_id_made_by_the_server_fits_the_grammar(host: str) -> None:
    made = [reader.claim(ClaimRequest(worker=worker_pb2.WorkerIdentity(host=host, pid=4))).worker.id for _ in "ab"]
    assert all(NAME.fullmatch(name) for name in made)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (ClaimRequest(queues=["q"] * 65), "queues"),
        (ClaimRequest(queues=["q", ""]), "queues[1]"),
        (ClaimRequest(max_in_flight=0), "max_in_flight"),
        (ClaimRequest(max_in_flight=10_001), "max_in_flight"),
        (ClaimRequest(lease_duration=lasting(SECOND - 1)), "lease_duration"),
        (ClaimRequest(lease_duration=lasting(12 * HOUR + 1)), "lease_duration"),
        (ClaimRequest(delivery_timeout=lasting(301 * SECOND)), "delivery_timeout"),
        (ClaimRequest(wait_timeout=Duration(seconds=-1)), "wait_timeout"),
        (ClaimRequest(worker=worker_pb2.WorkerIdentity(id="a/b")), "worker.id"),
        (ClaimRequest(worker=worker_pb2.WorkerIdentity(session=-1)), "worker.session"),
        (ClaimRequest(worker=worker_pb2.WorkerIdentity(pid=-1)), "worker.pid"),
        (ClaimRequest(worker=worker_pb2.WorkerIdentity(runtime="\0")), "worker.runtime"),
    ],
)
def test_a_refused_claim_names_the_field(request_: ClaimRequest, path: str) -> None:
    refused(lambda: reader.claim(request_), path)


def lease(job_id: str = "j", token: str = TOKEN, **fields: Any) -> worker_service_pb2.LeaseBeat:
    return worker_service_pb2.LeaseBeat(job_id=job_id, token=token, **fields)


W = worker_pb2.WorkerIdentity(id="w", session=9)


def test_a_beat_never_carries_the_streams_session() -> None:
    progress = job_service_pb2.ReportProgress(fraction=1.0)
    worker, renewals = reader.heartbeat(Beat(worker=W, leases=[lease(), lease("k", progress=progress)]))
    assert (worker.id, worker.session) == ("w", 0)
    assert [(r.job_id, r.token, r.fraction) for r in renewals] == [("j", DIGEST, None), ("k", DIGEST, 1.0)]


@pytest.mark.parametrize(
    ("request_", "path", "reason"),
    [
        (Beat(), "worker.id", Reason.INVALID_FIELD),
        (Beat(worker=W, leases=[lease(), lease()]), "leases[1].job_id", Reason.INVALID_FIELD),
        (Beat(worker=W, leases=[lease(token="")]), "leases[0].token", Reason.LEASE_REQUIRED),
        (Beat(worker=W, leases=[lease(token="zz")]), "leases[0].token", Reason.INVALID_FIELD),
        (Beat(worker=W, leases=[lease(str(i)) for i in range(1001)]), "leases", Reason.INVALID_FIELD),
    ],
)
def test_a_refused_beat_names_the_field(request_: Beat, path: str, reason: Reason) -> None:
    refused(lambda: reader.heartbeat(request_), path, reason)


def test_a_renewal_is_told_in_the_contracts_three_words() -> None:
    ok = lease_status("j", Renewed(Outcome.OK, remaining=5))
    assert (ok.job_id, ok.state, ok.remaining) == ("j", worker_service_pb2.LEASE_STATE_OK, lasting(5))
    asked = lease_status("j", Renewed(Outcome.OK, remaining=5, cancel_requested=True, cancel_reason="r"))
    assert (asked.state, asked.cancel_reason) == (worker_service_pb2.LEASE_STATE_CANCEL_REQUESTED, "r")
    for outcome in (Outcome.GONE, Outcome.LOST):
        assert lease_status("j", Renewed(outcome)).state == worker_service_pb2.LEASE_STATE_LOST


def test_recovery_is_read_whole() -> None:
    nothing = reader.recover(Recover())
    assert (nothing.queues, nothing.stuck_for, nothing.max_jobs, nothing.validate_only) == ((), None, 1000, False)
    assert (nothing.recovery.max_interruptions, nothing.recovery.initial_delay) == (None, None)
    full = reader.recover(
        Recover(
            queues=["q"],
            stuck_for=lasting(SECOND),
            max_retries=0,
            initial_delay=lasting(0),
            max_jobs=9,
            validate_only=True,
        )
    )
    assert (full.queues, full.stuck_for, full.max_jobs, full.validate_only) == (("q",), SECOND, 9, True)
    assert (full.recovery.max_interruptions, full.recovery.initial_delay) == (0, 0)


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (Recover(stuck_for=lasting(SECOND - 1)), "stuck_for"),
        (Recover(max_retries=1001), "max_retries"),
        (Recover(initial_delay=Duration(seconds=-1)), "initial_delay"),
        (Recover(max_jobs=1001), "max_jobs"),
        (Recover(queues=["/"]), "queues[0]"),
    ],
)
def test_a_refused_recovery_names_the_field(request_: Recover, path: str) -> None:
    refused(lambda: reader.recover(request_), path)


# --- sizes ---------------------------------------------------------------------------------------------------


class Stream:
    worker_id = "w" * 64
    session = 1


def big_job(name: str, size: int) -> Job:
    payload = job_pb2.Job(payload=job_pb2.Payload(data=b"x" * size)).SerializeToString()
    return stored(NewJob(id=name, submission=payload), state=JobState.IN_PROGRESS, claim_time=NOW, score=NOW + 9)


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=40))
def test_assignments_are_split_into_messages_that_fit_and_none_is_lost(sizes: list[int]) -> None:
    limit = 5000
    jobs = [Assignment(big_job(f"j{i}", size), bytes(16), b"") for i, size in enumerate(sizes)]
    messages = list(claim_messages(cast("ClaimStream", Stream()), Assigned(NOW, jobs), limit))
    assert all(message.ByteSize() <= limit for message in messages)
    told = [one.job.id for message in messages for one in message.jobs.assignments]
    assert told == [assignment.job.id for assignment in jobs]
    assert {message.jobs.worker_id for message in messages} == {Stream.worker_id}


def test_an_assignment_tells_how_long_there_is_to_acknowledge() -> None:
    job = big_job("j", 0)
    [message] = claim_messages(
        cast("ClaimStream", Stream()),
        Assigned(NOW, [Assignment(job, b"\1" * 16, b""), Assignment(replace(job, acknowledged=True), bytes(16), b"")]),
        4000,
    )
    waiting, held = message.jobs.assignments
    assert (waiting.token, waiting.acknowledge_within, waiting.lease_remaining) == ("01" * 16, lasting(9), lasting(9))
    assert not held.HasField("acknowledge_within")


@given(st.lists(st.one_of(st.none(), st.integers(0, 2000)), min_size=1, max_size=40))
def test_a_batch_read_fits_and_names_what_it_left_out(sizes: list[int | None]) -> None:
    limit = 6000
    asked = [f"j{i}" for i in range(len(sizes))]
    jobs = [None if size is None else big_job(name, size) for name, size in zip(asked, sizes, strict=True)]
    answer = got(asked, jobs, limit)
    assert answer.ByteSize() <= limit
    assert list(answer.not_found_ids) == [name for name, size in zip(asked, sizes, strict=True) if size is None]
    assert [job.id for job in answer.jobs] + list(answer.remaining_ids) == [job.id for job in jobs if job is not None]
    assert answer.jobs or not any(jobs)
