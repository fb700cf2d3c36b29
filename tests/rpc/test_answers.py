"""Jobs as the wire tells them, and answers that fit."""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from tests.rpc.reading import (
    NOW,
    CreateRequest,
    at,
    full_submission,
    lasting,
    reader,
    stored,
)

from jobwire.v1 import job_pb2, job_service_pb2
from jobwire_server.domain.job import (
    DAY,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    NewJob,
    Progress,
)
from jobwire_server.rpc import validate
from jobwire_server.rpc.answers import Room, job_message, set_duration, set_time, write_got, write_job, write_preview
from jobwire_server.rpc.claim_messages import claim_messages
from jobwire_server.rpc.convert import SUBMITTED
from jobwire_server.service.claim_events import Assigned, Assignment
from jobwire_server.service.claim_stream import ClaimStream


def test_every_submitted_field_comes_back_as_it_was_sent() -> None:
    sent = full_submission()
    assert {field.name for field, _ in sent.ListFields()} == SUBMITTED

    new = reader.new_job(CreateRequest(job=sent))
    answered = job_message(stored(new))

    for name in SUBMITTED:
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
    missing = {field.name for field in message.DESCRIPTOR.fields} - {field.name for field, _ in message.ListFields()}
    assert missing == only_once_ended
    assert message.state == job_pb2.JOB_STATE_IN_PROGRESS
    assert (message.version, message.etag, message.fence, message.attempt) == (12, job.etag, 99, 4)
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


# --- sizes ---------------------------------------------------------------------------------------------------------


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
        Assigned(NOW, [Assignment(job, b"\1" * 16, b""), Assignment(job._replace(acknowledged=True), bytes(16), b"")]),
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
    answer = job_service_pb2.BatchGetJobsResponse()
    room = Room(limit, names=asked)
    for i in range(0, len(asked), 7):
        write_got(answer, asked[i : i + 7], jobs[i : i + 7], room)
    assert answer.ByteSize() <= limit
    assert list(answer.not_found_ids) == [name for name, size in zip(asked, sizes, strict=True) if size is None]
    assert [job.id for job in answer.jobs] + list(answer.remaining_ids) == [job.id for job in jobs if job is not None]
    assert answer.jobs or not any(jobs)


def test_a_job_too_large_for_any_answer_comes_alone() -> None:
    answer = job_service_pb2.ListJobsResponse()
    room = Room(1000)
    large, small = big_job("large", 2000), big_job("small", 0)
    assert room.add(answer.jobs, large)
    assert not room.add(answer.jobs, small)
    assert room.is_full
    assert list(answer.jobs) == [job_message(large)]
