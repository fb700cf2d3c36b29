"""A worker against a real server."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.client.conftest import Bench

from jobwire.v1.job_pb2 import AttemptOutcome, Payload, RetryPolicy
from jobwire.v1.job_service_pb2 import ClaimJobRequest, GetJobRequest, RecoverStuckJobsRequest
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_client import (
    Client,
    InvalidField,
    Job,
    JobContext,
    JobState,
    PermanentError,
    Settled,
    Superseded,
    Worker,
    new_job,
)

QUICK = RetryPolicy(max_retries=1, initial_delay=Duration(nanos=10_000_000), jitter=0)


def outcomes(job: Job) -> list[str]:
    prefix = "ATTEMPT_OUTCOME_"
    return [AttemptOutcome.Name(attempt.outcome).removeprefix(prefix) for attempt in job.attempts]


def state(job: Job) -> str:
    return JobState.Name(job.state).removeprefix("JOB_STATE_")


async def test_handlers_async_and_plain_complete_their_jobs(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue], concurrency=4)

    @worker.handler("double")
    async def double(context: JobContext) -> dict[str, int]:
        return {"n": context.json()["n"] * 2}

    @worker.handler("shout")
    def shout(context: JobContext) -> str:
        return context.text.upper()

    async with bench.working(worker):
        doubled = await bench.ended((await bench.client.create("double", {"n": 21}, queue=queue)).id)
        shouted = await bench.ended((await bench.client.create("shout", "hello", queue=queue)).id)
    assert doubled.result == Payload(content_type="application/json", text='{"n": 42}')
    assert shouted.result == Payload(content_type="text/plain", text="HELLO")
    assert [attempt.worker_id for attempt in doubled.attempts] == [worker.id]


async def test_a_failure_is_tried_again_until_the_budget_is_used_up(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue])

    @worker.handler("fragile")
    async def fragile(context: JobContext) -> str:
        if context.job.attempt == 1 or context.text == "never":
            raise ConnectionError("not today")
        return "done"

    async with bench.working(worker):
        second = await bench.client.create("fragile", "once", queue=queue, retry_policy=QUICK)
        never = await bench.client.create("fragile", "never", queue=queue, retry_policy=QUICK)
        second, never = await bench.ended(second.id), await bench.ended(never.id)
    assert (state(second), outcomes(second)) == ("COMPLETED", ["FAILED", "COMPLETED"])
    assert (state(never), outcomes(never)) == ("FAILED", ["FAILED", "FAILED"])
    assert (never.error.code, never.error.message) == ("ConnectionError", "not today")


async def test_a_permanent_error_is_not_tried_again(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue])

    @worker.handler("hopeless")
    async def hopeless(context: JobContext) -> None:
        raise PermanentError("no such address", code="NO_SUCH_ADDRESS")

    async with bench.working(worker):
        job = await bench.ended((await bench.client.create("hopeless", queue=queue)).id)
    assert (state(job), outcomes(job), job.error.code) == ("FAILED", ["FAILED"], "NO_SUCH_ADDRESS")


async def test_a_report_can_be_seen_while_the_handler_runs(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue])
    go_on = asyncio.Event()

    @worker.handler("slow")
    async def slow(context: JobContext) -> None:
        await context.report(0.5, "half way")
        await go_on.wait()

    async with bench.working(worker):
        made = await bench.client.create("slow", queue=queue)
        job = await bench.job_when(made.id, lambda job: job.HasField("progress"))
        assert (job.progress.fraction, job.progress.message) == (0.5, "half way")
        go_on.set()
        assert state(await bench.ended(made.id)) == "COMPLETED"


async def test_a_cancel_reaches_the_handler(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue])
    started: asyncio.Queue[JobContext] = asyncio.Queue()
    stopped = 0

    @worker.handler("endless")
    async def endless(context: JobContext) -> None:
        nonlocal stopped
        started.put_nowait(context)
        try:
            await asyncio.Event().wait()
        finally:
            stopped += 1

    @worker.handler("plain")
    def plain(context: JobContext) -> None:
        context._loop.call_soon_threadsafe(started.put_nowait, context)
        while not context.wait_stopped(30):
            pass
        context.check()

    async with bench.working(worker):
        for type in ("endless", "plain"):
            made = await bench.client.create(type, queue=queue)
            context = await started.get()
            await bench.client.cancel(made.id, reason="changed my mind")
            job = await bench.ended(made.id)
            assert (state(job), outcomes(job)) == ("CANCELED", ["CANCELED"])
            assert context.cancel_reason == "changed my mind"
    assert stopped == 1


async def test_a_lost_lease_stops_the_handler_which_reports_nothing_and_the_next_run_completes(
    bench: Bench, queue: str
) -> None:
    settled: list[Settled] = []
    worker = Worker(bench.address, queues=[queue], concurrency=2, on_settled=settled.append)
    started: asyncio.Queue[int] = asyncio.Queue()
    running = most_running = 0

    @worker.handler("taken")
    async def taken(context: JobContext) -> str:
        nonlocal running, most_running
        running += 1
        most_running = max(most_running, running)
        started.put_nowait(context.fence)
        try:
            if context.job.attempt == 1:
                await asyncio.Event().wait()
            return "second"
        finally:
            running -= 1

    async with bench.working(worker):
        made = await bench.client.create("taken", queue=queue)
        first = await started.get()
        stuck = RecoverStuckJobsRequest(queues=[queue], stuck_for=Duration(seconds=1))
        while not (await bench.client.stubs.jobs.RecoverStuckJobs(stuck)).requeued_ids:
            pass  # until it has been held for a second, which is the least that counts as stuck
        second = await started.get()
        job = await bench.ended(made.id)
    assert first < second
    assert most_running == 1
    assert (state(job), outcomes(job), job.result.text) == ("COMPLETED", ["INTERRUPTED", "COMPLETED"], "second")
    assert [(done.fence, done.verb) for done in settled] == [(second, "complete")]


async def test_a_delivery_is_acknowledged_at_once(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue], lease_duration=3600)  # the next round of beats is far away
    go_on = asyncio.Event()

    @worker.handler("slow")
    async def slow(context: JobContext) -> None:
        await go_on.wait()

    async with bench.working(worker):
        made = await bench.client.create("slow", queue=queue)
        job = await bench.job_when(made.id, lambda job: job.lease.acknowledged)
        go_on.set()
        await bench.ended(made.id)
    assert job.lease.worker_id == worker.id


async def test_a_blocked_loop_keeps_its_lease(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue], concurrency=1, lease_duration=1)

    @worker.handler("blocking")
    async def blocking(context: JobContext) -> str:
        """Stops the event loop until the server has prolonged the lease to three times its length and more."""
        with grpc.insecure_channel(bench.address) as channel:
            jobs = JobServiceStub(channel)
            # A rival, who would get the job as soon as its lease had run out.
            rival = jobs.ClaimJob(ClaimJobRequest(queues=[queue], max_jobs=1))
            started = context.job.attempts[-1].start_time.ToDatetime(UTC)
            give_up = time.monotonic() + 20
            while time.monotonic() < give_up:
                job = jobs.GetJob(GetJobRequest(job_id=context.job.id)).job
                if job.fence != context.fence or job.state != JobState.JOB_STATE_IN_PROGRESS:
                    return f"the lease was lost: {job}"
                # Until the first beat the lease is the delivery's, which is longer.
                if job.lease.acknowledged and job.lease.expire_time.ToDatetime(UTC) > started + timedelta(seconds=3):
                    rival.cancel()
                    return "kept"
        return "it took too long"

    async with bench.working(worker):
        made = await bench.client.create("blocking", queue=queue)
        job = await bench.ended(made.id)
    assert job.result.text == "kept"
    assert (outcomes(job), job.interruption_count) == (["COMPLETED"], 0)


async def test_a_delivery_is_acknowledged_while_a_handler_blocks_the_loop(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue], concurrency=2, lease_duration=3600)

    @worker.handler("blocking")
    async def blocking(context: JobContext) -> str:
        """Stops the event loop until a job that is created meanwhile is acknowledged: by whom, if not by a thread?"""
        with Client(bench.address) as client:
            other = client.create("quick", queue=queue)
            give_up = time.monotonic() + 20
            while time.monotonic() < give_up:
                if client.get(other.id).lease.acknowledged:
                    return other.id
        return "it took too long"

    worker.handler("quick")(lambda context: "done")
    async with bench.working(worker):
        made = await bench.client.create("blocking", queue=queue)
        other_id = (await bench.ended(made.id)).result.text
        other = await bench.ended(other_id)
    assert (outcomes(other), other.interruption_count) == (["COMPLETED"], 0)


async def test_a_job_of_an_unknown_type_is_left_to_others(
    bench: Bench, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(bench.address, queues=[queue])
    worker.handler("known")(lambda context: None)
    async with bench.working(worker):
        made = await bench.client.create("unknown", queue=queue)
        job = await bench.job_when(made.id, lambda job: state(job) == "SCHEDULED")
    assert outcomes(job) == ["RELEASED"]
    assert job.schedule_time.ToDatetime(UTC) - job.attempts[0].end_time.ToDatetime(UTC) == timedelta(seconds=30)
    assert "no handler for jobs of type 'unknown'" in caplog.text


async def test_a_newer_stream_of_the_same_id_ends_the_worker_after_its_jobs(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue])
    started, go_on = asyncio.Event(), asyncio.Event()

    @worker.handler("slow")
    async def slow(context: JobContext) -> str:
        started.set()
        await go_on.wait()
        return "finished"

    running = asyncio.create_task(worker.run())
    made = await bench.client.create("slow", queue=queue)
    await started.wait()
    identity = WorkerIdentity(id=worker.id, session=time.time_ns() // 1000 + 1_000_000_000)
    newer = bench.client.stubs.jobs.ClaimJob(ClaimJobRequest(worker=identity, queues=[queue]))
    await newer.initial_metadata()
    go_on.set()
    with pytest.raises(Superseded):
        await running
    newer.cancel()
    assert (await bench.client.get(made.id)).result.text == "finished"


async def test_a_worker_that_the_server_will_never_take_ends(bench: Bench) -> None:
    worker = Worker(bench.address, queues=["no spaces allowed"])
    worker.handler("x")(lambda context: None)
    with pytest.raises(InvalidField):
        await worker.run()


async def test_a_cancelled_run_gives_its_jobs_back(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue])
    started = asyncio.Event()

    @worker.handler("endless")
    async def endless(context: JobContext) -> None:
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(worker.run())
    made = await bench.client.create("endless", queue=queue)
    await started.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    job = await bench.client.get(made.id)
    assert (state(job), outcomes(job), job.retry_count) == ("QUEUED", ["RELEASED"], 0)


async def test_several_workers_share_a_queue_and_run_each_job_once(bench: Bench, queue: str) -> None:
    ran: list[str] = []
    workers = [Worker(bench.address, queues=[queue], concurrency=7) for _ in range(3)]
    for worker in workers:

        @worker.handler("x")
        async def run(context: JobContext) -> None:
            ran.append(context.job.id)

    async with bench.working(workers[0]), bench.working(workers[1]), bench.working(workers[2]):
        made = await bench.client.create_many(new_job("x", queue=queue) for _ in range(300))
        ids = [job.id for job in made if isinstance(job, Job)]
        jobs = [await bench.ended(job_id) for job_id in ids]
    assert sorted(ran) == sorted(ids)
    assert all(outcomes(job) == ["COMPLETED"] for job in jobs)


async def test_a_worker_without_handlers_is_a_mistake(bench: Bench) -> None:
    with pytest.raises(ValueError, match="handlers"):
        await Worker(bench.address).run()


def test_two_handlers_of_one_type_are_a_mistake() -> None:
    worker = Worker()
    worker.handler("x")(lambda context: None)
    with pytest.raises(ValueError, match="already"):
        worker.handler("x")(lambda context: None)
    worker.default_handler(lambda context: None)
    with pytest.raises(ValueError, match="already"):
        worker.default_handler(lambda context: None)


async def test_the_default_handler_runs_what_has_no_handler_of_its_own(bench: Bench, queue: str) -> None:
    worker = Worker(bench.address, queues=[queue])

    @worker.default_handler
    async def any_other(context: JobContext) -> str:
        return f"by default: {context.job.type}"

    @worker.handler("known")
    def known(context: JobContext) -> str:
        return "by its own"

    results = {}
    async with bench.working(worker):
        for type in ("known", "unheard of", ""):
            job = await bench.ended((await bench.client.create(type, queue=queue)).id)
            results[type] = job.result.text
    assert results == {"known": "by its own", "unheard of": "by default: unheard of", "": "by default: "}
