"""Creates, changes and edits as the domain reads them."""

from __future__ import annotations

import hashlib
import math
import uuid
from contextvars import copy_context
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from tests.rpc.reading import (
    BIG,
    DIGEST,
    KIB,
    NOW,
    TOKEN,
    CreateRequest,
    UpdateRequest,
    at,
    full_submission,
    lasting,
    reader,
    refused,
)

from jobwire.v1 import job_pb2, job_service_pb2
from jobwire_server.domain.change import Edit, Fail, Release, Report
from jobwire_server.domain.errors import Reason
from jobwire_server.domain.job import (
    DAY,
    JobError,
    NewJob,
    RetryPolicy,
)
from jobwire_server.domain.move import Completion
from jobwire_server.rpc.convert import EDITABLE, SUBMITTED
from jobwire_server.rpc.ids import JobIds
from jobwire_server.telemetry.logs import principal_name


def test_an_empty_create_gets_every_default() -> None:
    new = reader.new_job(CreateRequest())
    assert new._replace(id="", digest=b"") == NewJob(id="", id_given=False)
    assert new.retry == RetryPolicy()


def test_the_digest_is_of_the_request_before_defaults() -> None:
    def digest(**fields: Any) -> bytes:
        return reader.new_job(CreateRequest(request_id="r", job=job_pb2.Job(**fields))).digest

    assert digest() == digest()
    assert digest() != digest(priority=5)
    assert digest(labels={"a": "1", "b": "2"}) == digest(labels={"b": "2", "a": "1"})
    sent = full_submission()
    told_apart = full_submission()
    told_apart.ClearField("traceparent")  # the same request may come again in another trace
    expected = hashlib.sha256(told_apart.SerializeToString(deterministic=True)).digest()
    assert reader.new_job(CreateRequest(job=sent)).digest == expected, "its id makes it repeatable"
    assert reader.new_job(CreateRequest(job=job_pb2.Job(type="t"))).digest == b"", "nothing can be its repeat"


def test_a_request_id_is_one_principals_own() -> None:
    def key(principal: str, request_id: str) -> bytes | None:
        def read() -> bytes | None:
            principal_name.set(principal)
            return reader.new_job(CreateRequest(request_id=request_id)).request_key

        return copy_context().run(read)

    assert key("a", "") is None
    assert key("a", "r") == key("a", "r") == hashlib.sha256(b"a\0r").digest()
    assert key("a", "r") != key("b", "r")
    assert key("a", "br") != key("ab", "r")


def test_what_the_server_does_not_know_is_digested_and_not_stored() -> None:
    unknown = b"\x82\x7d\x03abc"  # field 2000, three bytes
    request = CreateRequest(job=job_pb2.Job.FromString(job_pb2.Job(type="t").SerializeToString() + unknown))
    request.request_id = "r"
    request.job.payload.MergeFromString(unknown)
    new = reader.new_job(request)
    assert b"abc" not in new.submission
    assert new.digest != reader.new_job(CreateRequest(request_id="r", job=job_pb2.Job(type="t"))).digest


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
    (job(webhook=job_pb2.Webhook()), "job.webhook.url", Reason.INVALID_FIELD),
    (job(queue="jobwire.x"), "job.queue", Reason.INVALID_FIELD),
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


# --- changes -------------------------------------------------------------------------------------------------------


def change(token: str = TOKEN, **fields: Any) -> UpdateRequest:
    return UpdateRequest(job_id="j", token=token, **fields)


def test_a_complete_carries_the_serialized_result() -> None:
    result = job_pb2.Payload(content_type="t", data=b"ok")
    got = reader.change(change(complete=job_service_pb2.CompleteJob(result=result)))
    assert isinstance(got, Completion)
    assert (got.job_id, got.token) == ("j", DIGEST)
    assert got.result is not None
    assert job_pb2.Payload.FromString(got.result) == result
    nothing = reader.change(change(complete=job_service_pb2.CompleteJob()))
    assert isinstance(nothing, Completion)
    assert nothing == Completion("j", DIGEST, None, nothing.operation)


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


# --- edits ---------------------------------------------------------------------------------------------------------


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
        (edit(webhook=job_pb2.Webhook()), "edit.job.webhook", Reason.INVALID_FIELD),
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
