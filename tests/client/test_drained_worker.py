"""A worker that an operator drains obeys, and the client that drains it sees so."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.client.conftest import PATIENCE, Bench
from tests.client.test_worker import outcomes, state
from tests.client.test_worker_faults import Heard
from tests.server_process import ServerProcess

from jobwire.v1.worker_pb2 import Worker as RegisteredWorker
from jobwire.v1.worker_pb2 import WorkerDirective
from jobwire_client import JobContext, Worker, WorkerNotFound, _heartbeat
from jobwire_client.models import worker_state_name

LOG = logging.getLogger("jobwire.worker")


class Steps(Worker):
    """A worker whose jobs of the type `slow` take until they are let go."""

    def __init__(self, address: str, queue: str) -> None:
        super().__init__(address, queues=[queue], concurrency=2, version="1.2.3")
        self.started, self.go_on = asyncio.Event(), asyncio.Event()
        self.ran: list[str] = []
        self.default_handler(self._run)

    async def _run(self, context: JobContext) -> str:
        self.ran.append(context.job.id)
        if context.job.type == "slow":
            self.started.set()
            await self.go_on.wait()
        return "finished"


@pytest.fixture(autouse=True)
def no_idle_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a worker learns of its operator, it learns because it asks."""
    monkeypatch.setattr(_heartbeat, "IDLE", 1e9)


async def registered(bench: Bench, worker: Worker, *, after: int = 0) -> RegisteredWorker:
    """The worker's record, once it has a stream open, of a later session than that."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for each in await bench.client.workers():
                if each.identity.id == worker.id and each.identity.session > after:
                    return each
            await asyncio.sleep(0.01)


async def other_takes(bench: Bench, queue: str, job_id: str) -> None:
    """The job is one that a worker other than the drained one, which stood in line before it, may have."""
    other = Worker(bench.address, queues=[queue])
    other.default_handler(lambda _: "by another")
    async with bench.working(other):
        assert (await bench.ended(job_id)).result.text == "by another"


async def test_a_quiet_worker_finishes_what_it_holds_claims_nothing_and_stays(bench: Bench, queue: str) -> None:
    worker = Steps(bench.address, queue)
    async with bench.working(worker) as running:
        slow = await bench.client.create("slow", queue=queue)
        await worker.started.wait()
        drained = await bench.client.drain_worker(worker.id)
        assert (worker_state_name(drained.state), list(drained.held_job_ids)) == ("QUIET", [slow.id])
        more = await bench.client.create("more", queue=queue)
        await other_takes(bench, queue, more.id)
        worker.go_on.set()
        assert (await bench.ended(slow.id)).result.text == "finished"
        assert (worker.ran, running.done()) == ([slow.id], False)
        again = await bench.client.create("again", queue=queue)
        lifted = await bench.client.drain_worker(worker.id, "NONE")
        assert worker_state_name(lifted.state) in ("IDLE", "BUSY")
        assert (await bench.ended(again.id)).result.text == "finished"
        assert worker.ran == [slow.id, again.id]


async def test_a_worker_told_to_terminate_finishes_what_it_holds_and_ends(bench: Bench, queue: str) -> None:
    worker = Steps(bench.address, queue)
    running = asyncio.create_task(worker.run())
    slow = await bench.client.create("slow", queue=queue)
    await worker.started.wait()
    drained = await bench.client.drain_worker(worker.id, "TERMINATE")
    assert drained.directive == WorkerDirective.WORKER_DIRECTIVE_TERMINATE
    more = await bench.client.create("more", queue=queue)
    worker.go_on.set()
    async with asyncio.timeout(PATIENCE):
        await running
    assert outcomes(await bench.client.get(slow.id)) == ["COMPLETED"]
    assert state(await bench.client.get(more.id)) == "QUEUED"


async def test_an_idle_worker_told_to_terminate_ends_without_waiting_for_its_next_beat(
    bench: Bench, queue: str
) -> None:
    worker = Steps(bench.address, queue)
    running = asyncio.create_task(worker.run())
    await registered(bench, worker)
    await bench.client.drain_worker(worker.id, WorkerDirective.WORKER_DIRECTIVE_TERMINATE)
    async with asyncio.timeout(PATIENCE):
        await running


async def test_each_word_of_the_operator_is_one_line_of_the_log(
    bench: Bench, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    heard = Heard()
    LOG.addHandler(heard)
    worker = Steps(bench.address, queue)
    async with bench.working(worker):
        await registered(bench, worker)
        await bench.client.drain_worker(worker.id)
        await heard.line("quieted")
        await bench.client.drain_worker(worker.id)
        await bench.client.drain_worker(worker.id, "NONE")
        await bench.client.create("slow", queue=queue)
        await heard.line("claims again")
        worker.go_on.set()
        await bench.client.drain_worker(worker.id, "TERMINATE")
        await heard.line("an operator ends")
    LOG.removeHandler(heard)
    said = [message.replace(worker.id, "w") for message in caplog.messages if message.startswith("an operator")]
    assert said == [
        "an operator has quieted worker w: it finishes what it holds, and stays",
        "an operator ends worker w",
    ]


async def test_a_drain_outlives_the_server(own_bench: Bench, own_server: ServerProcess, queue: str) -> None:
    worker = Steps(own_bench.address, queue)
    async with own_bench.working(worker):
        before = await registered(own_bench, worker)
        await own_bench.client.drain_worker(worker.id)
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        job = await own_bench.client.create("more", queue=queue)
        await registered(own_bench, worker, after=before.identity.session)
        await other_takes(own_bench, queue, job.id)
        assert worker.ran == []


async def test_workers_are_listed_by_state_with_what_they_said(bench: Bench, queue: str) -> None:
    worker = Steps(bench.address, queue)
    async with bench.working(worker):
        await registered(bench, worker)
        (found,) = [each for each in await bench.client.workers(states=["IDLE"]) if each.identity.id == worker.id]
        assert (found.identity.version, list(found.queues), found.max_in_flight) == ("1.2.3", [queue], 2)
        assert found.identity.runtime.startswith("python/")
        await bench.client.drain_worker(worker.id)
        assert worker.id in {each.identity.id for each in await bench.client.workers(states=["QUIET", "LOST"])}
        assert worker.id not in {each.identity.id for each in await bench.client.workers(states=["IDLE", "BUSY"])}


async def test_a_worker_that_nobody_knows_cannot_be_drained(bench: Bench) -> None:
    with pytest.raises(WorkerNotFound):
        await bench.client.drain_worker("nobody")
    with pytest.raises(ValueError, match="NAP"):
        await bench.client.drain_worker("nobody", "NAP")
    with pytest.raises(ValueError, match="ASLEEP"):
        await bench.client.workers(states=["ASLEEP"])
