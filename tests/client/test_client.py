"""What a producer does with the client."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.client.conftest import Bench
from tests.server_process import ServerProcess

from jobwire.v1.job_pb2 import Payload, RetryPolicy
from jobwire_client import (
    AsyncClient,
    EtagMismatch,
    IllegalTransition,
    InvalidField,
    Job,
    JobExists,
    JobNotFound,
    JobState,
    QueueNotFound,
    RequestIdReused,
    Unavailable,
    new_job,
)


async def test_a_created_job_can_be_read_as_it_was_given(bench: Bench, queue: str) -> None:
    later = datetime.now(UTC).replace(microsecond=250) + timedelta(hours=1)
    made = await bench.client.create(
        "email.send",
        {"to": "ann@example.org"},
        queue=queue,
        priority=2,
        user_id="ann",
        labels={"team": "mail"},
        schedule_time=later,
        expire_time=later + timedelta(hours=1),
        execution_timeout=timedelta(minutes=1),
        retention=3600,
        retry_policy=RetryPolicy(max_retries=0),
    )
    job = await bench.client.get(made.id)
    assert (made.id, made.queue, made.state, made.version, made.etag) == (job.id, queue, job.state, 1, job.etag)
    assert job.payload == Payload(content_type="application/json", text='{"to": "ann@example.org"}')
    assert (job.type, job.queue, job.priority, job.user_id, dict(job.labels)) == (
        "email.send",
        queue,
        2,
        "ann",
        {"team": "mail"},
    )
    assert job.state == JobState.JOB_STATE_SCHEDULED
    assert job.schedule_time.ToDatetime(UTC) == later
    assert job.execution_timeout.ToTimedelta() == timedelta(minutes=1)
    assert job.retention.ToTimedelta() == timedelta(hours=1)
    assert job.retry_policy.max_retries == 0


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (None, None),
        (b"\x00\xff", Payload(content_type="application/octet-stream", data=b"\x00\xff")),
        ("grüße", Payload(content_type="text/plain", text="grüße")),
        (0, Payload(content_type="application/json", text="0")),
        ([1, None], Payload(content_type="application/json", text="[1, null]")),
        (Payload(content_type="text/csv", text="a,b"), Payload(content_type="text/csv", text="a,b")),
    ],
)
async def test_payloads_go_as_what_they_are(
    bench: Bench, queue: str, body: bytes | str | int | list[int | None] | Payload | None, stored: Payload | None
) -> None:
    made = await bench.client.create("x", body, queue=queue)
    job = await bench.client.get(made.id)
    assert (job.payload if job.HasField("payload") else None) == stored


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        new_job("x", schedule_time=datetime(2030, 1, 1))  # noqa: DTZ001  that is the case


async def test_creates_without_an_id_are_jobs_of_their_own(bench: Bench, queue: str) -> None:
    one, other = await bench.client.create("x", queue=queue), await bench.client.create("x", queue=queue)
    assert one.id != other.id


async def test_the_same_create_again_answers_the_same_job(bench: Bench, queue: str) -> None:
    by_id = [await bench.client.create("x", "1", id=f"{queue}-1", queue=queue) for _ in range(2)]
    by_request = [await bench.client.create("x", "1", request_id=queue, queue=queue) for _ in range(2)]
    assert by_id[0].id == by_id[1].id
    assert by_request[0].id == by_request[1].id
    with pytest.raises(JobExists):
        await bench.client.create("x", "2", id=f"{queue}-1", queue=queue)
    with pytest.raises(RequestIdReused):
        await bench.client.create("x", "2", request_id=queue, queue=queue)


async def test_many_creates_have_an_outcome_each_in_order(bench: Bench, queue: str) -> None:
    jobs = [new_job("x", id=f"{queue[:40]}-{n}", queue=queue) for n in range(1_500)]
    jobs[7].priority = 99
    outcomes = await bench.client.create_many(jobs)
    made = [outcome.id if isinstance(outcome, Job) else outcome.reason for outcome in outcomes]
    assert made == [job.id if n != 7 else "INVALID_FIELD" for n, job in enumerate(jobs)]
    found = await bench.client.get_many([*(job.id for job in jobs), "no-such-job"])
    assert {job.id for job in found} == {job.id for job in jobs} - {jobs[7].id}


async def test_many_large_jobs_are_created_and_read_in_pieces(bench: Bench, queue: str) -> None:
    outcomes = await bench.client.create_many(new_job("x", bytes(200_000), queue=queue) for _ in range(50))
    made = {outcome.id for outcome in outcomes if isinstance(outcome, Job)}
    assert len(made) == 50
    assert {job.id for job in await bench.client.get_many(made)} == made


async def test_a_waiting_job_is_cancelled_and_can_be_replayed(bench: Bench, queue: str) -> None:
    made = await bench.client.create("x", queue=queue)
    cancelled = await bench.client.cancel(made.id, reason="not needed")
    assert (cancelled.state, cancelled.cancel_reason) == (JobState.JOB_STATE_CANCELED, "not needed")
    replayed = await bench.client.retry(made.id, etag=cancelled.etag)
    assert replayed.state == JobState.JOB_STATE_QUEUED
    with pytest.raises(IllegalTransition) as caught:
        await bench.client.retry(made.id)
    assert caught.value.metadata["from"]


async def test_a_create_outlives_a_restart_of_the_server(own_server: ServerProcess) -> None:
    own_server.kill()
    async with AsyncClient(own_server.address, timeout=30) as client:
        creating = asyncio.create_task(client.create("x"))
        await asyncio.to_thread(own_server.start)
        made = await creating
        assert (await client.get(made.id)).id == made.id


async def test_without_a_server_a_call_fails_in_its_time(own_server: ServerProcess) -> None:
    own_server.kill()
    async with AsyncClient(own_server.address) as client:
        with pytest.raises(Unavailable) as caught:
            await client.create("x", timeout=0.3)
    assert caught.value.is_outcome_unknown


async def test_jobs_are_listed_over_pages_and_counted_by_state(bench: Bench, queue: str) -> None:
    made = await bench.client.create_many(new_job("x", queue=queue, user_id=f"user {n % 2}") for n in range(7))
    ids = [job.id for job in made if isinstance(job, Job)]
    await bench.client.cancel(ids[0])
    waiting = [job.id async for job in bench.client.list(queues=[queue], states=["QUEUED"], page_size=2)]
    assert waiting == ids[1:]
    assert len([job async for job in bench.client.list(queues=[queue], page_size=2, limit=3)]) == 3
    page = await bench.client.list_page(queues=[queue], states=[JobState.JOB_STATE_QUEUED], page_size=2)
    assert [job.id for job in page.jobs] == ids[1:3]
    assert page.next_page_token
    assert await bench.client.count(queues=[queue]) == {"QUEUED": 6, "CANCELED": 1}
    assert await bench.client.count(queues=[queue], user_id="user 1") == {"QUEUED": 3}


async def test_a_state_that_there_is_not_is_a_mistake(bench: Bench) -> None:
    with pytest.raises(ValueError, match="DONE"):
        await bench.client.count(states=["DONE"])


async def test_an_edit_changes_what_is_named_and_none_puts_it_back(bench: Bench, queue: str) -> None:
    made = await bench.client.create("x", "1", queue=queue, priority=2, labels={"a": "b"})
    edited = await bench.client.update(made.id, etag=made.etag, priority=None, payload="2", retention=60)
    assert (edited.priority, edited.payload.text, edited.retention.seconds) == (5, "2", 60)
    assert dict(edited.labels) == {"a": "b"}
    with pytest.raises(EtagMismatch):
        await bench.client.update(made.id, etag=made.etag, labels=None)
    assert dict((await bench.client.update(made.id, labels=None)).labels) == {}
    with pytest.raises(ValueError, match="nothing"):
        await bench.client.update(made.id)


def test_a_field_that_there_is_not_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="prio"):
        new_job("x", prio=1)  # type: ignore[call-arg]  # that is the case


async def test_a_deleted_job_is_gone(bench: Bench, queue: str) -> None:
    made = await bench.client.create("x", queue=queue)
    await bench.client.delete(made.id, etag=made.etag)
    with pytest.raises(JobNotFound) as caught:
        await bench.client.delete(made.id)
    assert not caught.value.is_outcome_unknown


async def test_changes_by_filter_go_on_until_all_were_looked_at(bench: Bench, queue: str) -> None:
    client = bench.client
    await client.create_many(new_job("x", queue=queue) for _ in range(1_200))
    assert await client.cancel_where(queues=[queue], validate_only=True) == 1_200
    assert await client.cancel_where(queues=[queue], limit=100) == 100
    assert await client.cancel_where(queues=[queue], reason="enough") == 1_100
    assert await client.retry_where(queues=[queue], states=["CANCELED"], limit=300) == 300
    assert await client.count(queues=[queue]) == {"QUEUED": 300, "CANCELED": 900}
    assert await client.purge_queue(queue) == 300
    assert await client.delete_where(queues=[queue]) == 900
    with pytest.raises(InvalidField):
        await client.delete_where()


async def test_a_queue_is_paused_tuned_and_put_back(bench: Bench, queue: str) -> None:
    with pytest.raises(QueueNotFound):
        await bench.client.pause_queue(queue)
    made = await bench.client.update_queue(queue, allow_missing=True, max_in_flight=3, ageing=30)
    assert (made.max_in_flight, made.ageing.seconds) == (3, 30)
    assert (await bench.client.pause_queue(queue)).paused
    assert not (await bench.client.resume_queue(queue)).paused
    again = await bench.client.update_queue(queue, etag=(await bench.client.get_queue(queue)).etag, max_in_flight=None)
    assert not again.HasField("max_in_flight")
    assert again.ageing.seconds == 30
    assert queue in [each.name for each in await bench.client.list_queues()]


async def test_stuck_jobs_are_recovered(bench: Bench, queue: str) -> None:
    assert not (await bench.client.recover(queues=[queue], stuck_for=60, validate_only=True)).more


async def test_the_server_says_what_it_is(bench: Bench) -> None:
    assert (await bench.client.server_info()).store.engine == "sqlite"


async def test_a_wait_ends_with_the_job_or_with_its_time(bench: Bench, queue: str) -> None:
    made = await bench.client.create("x", queue=queue)
    with pytest.raises(TimeoutError):
        await bench.client.wait(made.id, timeout=0.01)
    waiting = asyncio.create_task(bench.client.wait(made.id))
    await bench.client.cancel(made.id)
    assert (await waiting).state == JobState.JOB_STATE_CANCELED
