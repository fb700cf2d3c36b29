"""What becomes of assignments inside a worker, with every interleaving written out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from typing import cast

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from jobwire.v1.job_pb2 import Job, Payload
from jobwire.v1.job_service_pb2 import Assignment, UpdateJobRequest, UpdateJobResponse
from jobwire_client import Ended, Handler, JobContext, LeaseLost, PermanentError, Release, Retry, Settled, TooLarge
from jobwire_client._runs import Runs
from jobwire_client._settler import Settler
from jobwire_client.hooks import Hooks


class ScriptedSettler:
    """Takes settlements; the test says how they are answered."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[tuple[UpdateJobRequest, asyncio.Future[UpdateJobResponse]]] = asyncio.Queue()

    async def send(self, request: UpdateJobRequest) -> UpdateJobResponse:
        answer: asyncio.Future[UpdateJobResponse] = asyncio.get_running_loop().create_future()
        self.sent.put_nowait((request, answer))
        return await answer

    async def next(self, answer: UpdateJobResponse | Exception | None = None) -> UpdateJobRequest:
        """Answers the next settlement, OK if nothing else is said."""
        request, future = await self.sent.get()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer or UpdateJobResponse())
        return request


class Leases:
    """What the heartbeat would beat for."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def settling(self, token: str) -> None: ...

    def drop(self, token: str) -> None:
        self.held.pop(token, None)


class Handlers:
    """Kinds of work whose course the test decides."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[JobContext] = asyncio.Queue()
        self.stopped: asyncio.Queue[JobContext] = asyncio.Queue()
        self.go_on: dict[int, asyncio.Future[str]] = {}
        self.thread_may_end = threading.Event()
        self.running = 0
        self.most_running = 0

    async def patient(self, context: JobContext) -> str:
        """Waits until the test gives it a result or an exception."""
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.go_on[context.fence] = asyncio.get_running_loop().create_future()
        self.started.put_nowait(context)
        try:
            return await self.go_on[context.fence]
        except asyncio.CancelledError:
            self.stopped.put_nowait(context)
            raise
        finally:
            self.running -= 1

    async def finishing(self, context: JobContext) -> str:
        """Does not let itself be cancelled in the middle."""
        self.started.put_nowait(context)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "finished in spite of it"
        return "not reached"

    def stubborn(self, context: JobContext) -> str:
        """A plain function that does not look whether it should stop."""
        context._loop.call_soon_threadsafe(self.started.put_nowait, context)
        assert self.thread_may_end.wait(30)
        return "done"

    def willing(self, context: JobContext) -> str:
        """A plain function that does."""
        context._loop.call_soon_threadsafe(self.started.put_nowait, context)
        assert context.wait_stopped(30)
        context.check()
        return "not reached"

    def leaving(self, context: JobContext) -> str:
        raise SystemExit(1)

    def all(self) -> Mapping[str, Handler]:
        return {
            "patient": self.patient,
            "finishing": self.finishing,
            "stubborn": self.stubborn,
            "willing": self.willing,
            "leaving": self.leaving,
        }


class Worker:
    """Runs with everything around them scripted."""

    def __init__(self, concurrency: int) -> None:
        self.settler = ScriptedSettler()
        self.leases = Leases()
        self.handlers = Handlers()
        self.starts: list[JobContext] = []
        self.ends: list[Ended] = []
        self.settled: list[Settled] = []
        self.runs = Runs(
            handlers=self.handlers.all(),
            default_handler=None,
            concurrency=concurrency,
            settler=cast("Settler", self.settler),
            leases=self.leases,
            hooks=Hooks(on_start=self.starts.append, on_end=self.ends.append, on_settled=self.settled.append),
        )

    def assign(self, job_id: str, fence: int, type: str = "patient") -> None:
        job = Job(id=job_id, type=type, attempt=1)
        self.leases.held[f"token-{fence}"] = job_id
        self.runs.assign([Assignment(job=job, token=f"token-{fence}", fence=fence)])

    async def started(self) -> JobContext:
        async with asyncio.timeout(30):
            return await self.handlers.started.get()

    async def stopped(self) -> JobContext:
        async with asyncio.timeout(30):
            return await self.handlers.stopped.get()

    def finish(self, fence: int, result: str | Exception = "done") -> None:
        if isinstance(result, Exception):
            self.handlers.go_on[fence].set_exception(result)
        else:
            self.handlers.go_on[fence].set_result(result)


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker(concurrency=2)
    yield worker
    worker.handlers.thread_may_end.set()
    answering = asyncio.create_task(answer_all(worker.settler))
    await worker.runs.drain(0)
    answering.cancel()


async def answer_all(settler: ScriptedSettler) -> None:
    while True:
        await settler.next()


async def turns() -> None:
    """Lets everything that is ready run, so that what must not happen would have happened."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_result_is_a_completion(worker: Worker) -> None:
    worker.assign("a", 1)
    assert worker.leases.held == {"token-1": "a"}
    await worker.started()
    worker.finish(1, "done")
    update = await worker.settler.next()
    assert (update.job_id, update.token) == ("a", "token-1")
    assert update.complete.result == Payload(content_type="text/plain", text="done")
    await turns()
    assert worker.leases.held == {}
    assert [(settled.fence, settled.verb) for settled in worker.settled] == [(1, "complete")]


@pytest.mark.parametrize(
    ("raised", "code", "permanent", "delay"),
    [
        (ValueError("bad"), "ValueError", False, None),
        (PermanentError("gone"), "PermanentError", True, None),
        (PermanentError("gone", code="NO_SUCH_ADDRESS"), "NO_SUCH_ADDRESS", True, None),
        (Retry("busy", after=1.5), "Retry", False, 1.5),
    ],
)
async def test_an_exception_is_a_failure(
    worker: Worker, raised: Exception, code: str, permanent: bool, delay: float | None
) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.finish(1, raised)
    fail = (await worker.settler.next()).fail
    assert (fail.error.code, fail.error.message, fail.permanent) == (code, str(raised), permanent)
    assert (fail.retry_delay.ToTimedelta().total_seconds() if fail.HasField("retry_delay") else None) == delay


async def test_what_an_exception_says_is_made_fit_for_the_wire(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.finish(1, ValueError("nul \0, half a pair \ud800, and " + "ü" * 10_000))
    message = (await worker.settler.next()).fail.error.message
    assert message.startswith("nul \ufffd, half a pair ?, and üü")
    assert len(message.encode()) <= 4096


async def test_a_handler_may_give_its_job_back(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.finish(1, Release(delay=7))
    assert (await worker.settler.next()).release.delay.seconds == 7


async def test_a_result_that_nobody_can_send_is_a_failure(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.handlers.go_on[1].set_result(cast("str", object()))
    assert (await worker.settler.next()).fail.error.code == "TypeError"


async def test_a_result_that_the_server_refuses_fails_the_job_for_good(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.finish(1)
    refusal = TooLarge("too large", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="TOO_LARGE")
    assert (await worker.settler.next(refusal)).HasField("complete")
    fail = (await worker.settler.next()).fail
    assert (fail.error.code, fail.permanent) == ("TOO_LARGE", True)


async def test_handlers_are_capped_at_the_concurrency(worker: Worker) -> None:
    for fence in range(1, 5):
        worker.assign(f"job-{fence}", fence)
    await worker.started(), await worker.started()
    await turns()
    assert worker.handlers.started.empty()
    assert len(worker.leases.held) == 4, "those that wait keep their leases"
    worker.finish(1)
    assert (await worker.started()).fence == 3, "a slot is free before the settlement is answered"
    assert worker.handlers.most_running == 2


async def test_a_new_fence_of_a_running_job_stops_the_older_run_and_starts_after_it(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.assign("a", 2)
    assert (await worker.stopped()).fence == 1
    assert (await worker.started()).fence == 2
    assert worker.handlers.most_running == 1
    assert worker.leases.held == {"token-2": "a"}
    worker.finish(2)
    assert (await worker.settler.next()).token == "token-2"
    await turns()
    assert worker.settler.sent.empty(), "nothing is reported of the older run"


async def test_a_new_fence_waits_for_a_thread_that_cannot_be_stopped(worker: Worker) -> None:
    worker.assign("a", 1, "stubborn")
    older = await worker.started()
    worker.assign("a", 2, "stubborn")
    worker.assign("a", 3, "stubborn")
    await turns()
    assert older.stopped
    assert worker.handlers.started.empty()
    worker.handlers.thread_may_end.set()
    assert (await worker.started()).fence == 3, "fence 2 was taken away while it waited"
    assert (await worker.settler.next()).token == "token-3"


async def test_an_old_fence_changes_nothing(worker: Worker) -> None:
    worker.assign("a", 2)
    await worker.started()
    worker.assign("a", 1)
    worker.finish(2)
    assert (await worker.settler.next()).token == "token-2"
    assert "token-1" not in worker.leases.held


async def test_a_cancel_or_loss_of_a_fence_it_does_not_hold_is_ignored(worker: Worker) -> None:
    worker.assign("a", 2)
    context = await worker.started()
    for fence in (1, 3):
        worker.runs.cancel("a", fence, "not this one")
        worker.runs.lose("a", fence)
    worker.runs.cancel("b", 2, "not this one")
    worker.runs.beaten("token-1", is_lost=True, cancel_reason=None)
    await turns()
    assert not context.stopped
    worker.finish(2)
    assert (await worker.settler.next()).HasField("complete")


async def test_a_cancelled_handler_releases_so_that_the_job_becomes_canceled(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.runs.beaten("token-1", is_lost=False, cancel_reason="changed my mind")
    context = await worker.stopped()
    assert context.cancelled
    assert context.cancel_reason == "changed my mind"
    assert (await worker.settler.next()).HasField("release")


async def test_a_cancelled_plain_handler_sees_it_and_leaves(worker: Worker) -> None:
    worker.assign("a", 1, "willing")
    context = await worker.started()
    worker.runs.cancel("a", 1, "")
    assert (await worker.settler.next()).HasField("release")
    assert context.cancelled


async def test_a_handler_that_finishes_in_spite_of_the_cancel_completes(worker: Worker) -> None:
    worker.assign("a", 1, "finishing")
    await worker.started()
    worker.runs.cancel("a", 1, "")
    assert (await worker.settler.next()).complete.result.text == "finished in spite of it"


async def test_a_run_past_its_execution_timeout_is_stopped_and_failed(worker: Worker) -> None:
    for fence, type in ((1, "patient"), (2, "willing")):
        job = Job(id=f"job-{fence}", type=type, execution_timeout=Duration(nanos=1_000_000))
        worker.runs.assign([Assignment(job=job, token=f"token-{fence}", fence=fence)])
    fails = [(await worker.settler.next()).fail for _ in range(2)]
    assert [fail.error.code for fail in fails] == ["EXECUTION_TIMEOUT"] * 2
    assert not any(fail.permanent for fail in fails)


async def test_a_run_within_its_execution_timeout_completes(worker: Worker) -> None:
    job = Job(id="a", type="patient", execution_timeout=Duration(seconds=3600))
    worker.runs.assign([Assignment(job=job, token="token-1", fence=1)])
    await worker.started()
    worker.finish(1)
    assert (await worker.settler.next()).HasField("complete")


async def test_a_run_that_is_stopped_before_its_first_step_never_begins(worker: Worker) -> None:
    worker.assign("a", 1)
    worker.runs.cancel("a", 1, "at once")
    assert (await worker.settler.next()).HasField("release")
    assert worker.handlers.started.empty()
    for fence in (2, 3):
        worker.assign(f"job-{fence}", fence)
    await worker.started(), await worker.started()


async def test_what_cancelled_a_handler_is_not_felt_by_its_settlement(worker: Worker) -> None:
    felt: asyncio.Queue[int] = asyncio.Queue()

    def feel(_: Settled) -> None:
        task = asyncio.current_task()
        assert task is not None
        felt.put_nowait(task.cancelling())

    worker.runs._hooks = Hooks(on_settled=feel)
    worker.assign("a", 1)
    await worker.started()
    worker.runs.cancel("a", 1, "")
    assert (await worker.settler.next()).HasField("release")
    assert await felt.get() == 0


async def test_a_handler_that_leaves_by_exit_fails_alone(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.handlers.go_on[1].set_exception(KeyError("first"))
    assert (await worker.settler.next()).fail.error.code == "KeyError"
    worker.assign("b", 2, "leaving")
    assert (await worker.settler.next()).fail.error.code == "SystemExit"


async def test_hooks_tell_when_a_handler_begins_and_how_it_ends(worker: Worker) -> None:
    worker.assign("a", 1)
    assert [context.fence for context in worker.starts] == []
    await worker.started()
    assert [context.fence for context in worker.starts] == [1]
    error = ValueError("bad")
    worker.finish(1, error)
    _, answer = await worker.settler.sent.get()
    [end] = worker.ends
    assert (end.job.id, end.fence, end.verb, end.error) == ("a", 1, "fail", error)
    assert end.seconds > 0
    assert worker.settled == [], "its settlement is not answered yet"
    worker.assign("b", 2)
    await worker.started()
    worker.runs.lose("b", 2)
    await worker.stopped()
    await turns()
    assert [(end.fence, end.verb) for end in worker.ends] == [(1, "fail"), (2, "lost")]
    answer.set_result(UpdateJobResponse())  # or the worker, at its end, would wait for it in vain


async def test_of_reports_from_a_thread_that_wait_the_latest_is_sent(worker: Worker) -> None:
    worker.assign("a", 1)
    context = await worker.started()
    context.report_from_thread(0.1)
    first, answer = await worker.settler.sent.get()
    for tenth in range(2, 10):
        context.report_from_thread(tenth / 10)
    answer.set_result(UpdateJobResponse())
    assert first.progress.fraction == 0.1
    assert (await worker.settler.next()).progress.fraction == 0.9
    await turns()
    assert worker.settler.sent.empty()


async def test_a_cancelled_job_that_waits_is_released_unrun(worker: Worker) -> None:
    for fence in (1, 2, 3):
        worker.assign(f"job-{fence}", fence)
    await worker.started(), await worker.started()
    worker.runs.cancel("job-3", 3, "")
    update = await worker.settler.next()
    assert (update.job_id, update.WhichOneof("change")) == ("job-3", "release")
    worker.finish(1)
    await turns()
    assert worker.handlers.started.empty()


async def test_a_lost_lease_stops_the_handler_and_reports_nothing(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.runs.beaten("token-1", is_lost=True, cancel_reason=None)
    context = await worker.stopped()
    assert context.stopped
    assert not context.cancelled
    await turns()
    assert worker.settler.sent.empty()
    assert worker.leases.held == {}


async def test_a_loss_does_not_drop_a_settlement_that_waits_for_its_answer(worker: Worker) -> None:
    worker.assign("a", 1)
    await worker.started()
    worker.finish(1)
    request, answer = await worker.settler.sent.get()
    worker.runs.beaten("token-1", is_lost=True, cancel_reason=None)
    worker.runs.lose("a", 1)
    await turns()
    assert not answer.done(), "it still waits"
    answer.set_result(UpdateJobResponse(already_applied=True))
    await turns()
    assert [(settled.verb, settled.answer) for settled in worker.settled] == [
        ("complete", UpdateJobResponse(already_applied=True))
    ]
    assert request.token == "token-1"


async def test_a_report_that_finds_the_lease_lost_stops_the_handler(worker: Worker) -> None:
    worker.assign("a", 1)
    context = await worker.started()
    reporting = asyncio.create_task(context.report(0.5, "half way"))
    lost = LeaseLost("lost", code=grpc.StatusCode.FAILED_PRECONDITION, reason="LEASE_LOST")
    progress = (await worker.settler.next(lost)).progress
    assert (progress.fraction, progress.message) == (0.5, "half way")
    await reporting
    assert (await worker.stopped()).fence == 1


async def test_a_job_without_a_handler_is_released_for_a_while(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.assign("a", 1, "nobody.knows")
    assert worker.leases.held == {"token-1": "a"}, "its delivery is acknowledged all the same"
    assert (await worker.settler.next()).release.delay.seconds == 30
    worker.assign("b", 2, "nobody.knows")
    await worker.settler.next()
    assert caplog.text.count("no handler for jobs of type 'nobody.knows'") == 1


async def test_a_drain_lets_handlers_finish_and_releases_what_has_not_started(worker: Worker) -> None:
    for fence in (1, 2, 3):
        worker.assign(f"job-{fence}", fence)
    await worker.started(), await worker.started()
    draining = asyncio.create_task(worker.runs.acknowledged(timeout=30))
    assert (await worker.settler.next()).job_id == "job-3"
    worker.assign("job-4", 4)
    assert (await worker.settler.next()).job_id == "job-4"
    await turns()
    assert not draining.done(), "job-1 and job-2 are not acknowledged yet"
    for fence in (1, 2):
        worker.runs.beaten(f"token-{fence}", is_lost=False, cancel_reason=None)
    await draining
    ending = asyncio.create_task(worker.runs.drain(grace=30))
    for fence in (1, 2):
        worker.finish(fence)
        assert (await worker.settler.next()).HasField("complete")
    await ending


async def test_a_drain_without_grace_stops_and_releases(worker: Worker) -> None:
    worker.assign("a", 1)
    worker.assign("b", 2, "willing")
    await worker.started(), await worker.started()
    ending = asyncio.create_task(worker.runs.drain(grace=0))
    updates = [await worker.settler.next(), await worker.settler.next()]
    assert {(update.job_id, update.WhichOneof("change")) for update in updates} == {("a", "release"), ("b", "release")}
    await ending


async def test_a_hook_that_fails_harms_nobody(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    worker.runs._hooks = Hooks(on_start=fail, on_end=fail, on_settled=fail)
    worker.assign("a", 1)
    await worker.started()
    worker.finish(1)
    await worker.settler.next()
    await turns()
    assert caplog.text.count("a hook of the worker failed for job a") == 3
    worker.assign("a", 2)
    assert (await worker.started()).fence == 2
