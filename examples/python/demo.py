"""jobwire at work: a server, 500 jobs, two workers, one of them killed with kill -9 in the middle.

    python demo.py [--store URL] [--jobs N]

Ctrl-C ends all of it, a second one at once.

Exit 0 only if every job that was created has ended as it should and none was completed twice, by the server's own
account and by the marks the handlers left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.duration_pb2 import Duration

from jobwire.v1.job_pb2 import AttemptOutcome
from jobwire_client import (
    AsyncClient,
    Job,
    JobContext,
    JobState,
    JobwireError,
    PermanentError,
    RetryPolicy,
    Settled,
    Worker,
    new_job,
)

try:
    from rich import box
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
except ImportError:  # the extra `cli` is not installed: plain lines say the same
    Console = None  # type: ignore[assignment,misc]  # asked for below

KILL_AT = 100
"""The settlement at which the first worker is killed."""
LEAST_JOBS = 50
"""Fewer may have ended before a worker is killed."""
PATIENCE = 90.0
"""Seconds after which the demo calls what has not ended lost."""
STATES = ["SCHEDULED", "QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELED", "EXPIRED"]
ENDED = {"COMPLETED", "FAILED", "CANCELED", "EXPIRED"}

EXPECTED = {
    "resize": "COMPLETED",
    "email": "COMPLETED",
    "report": "COMPLETED",
    "flaky": "COMPLETED",
    "later": "COMPLETED",
    "broken": "FAILED",
    "hopeless": "FAILED",
    "endless": "CANCELED",
    "unwanted": "CANCELED",
}
"""How the jobs of each type have to end."""


# --- the worker processes: demo.py --work TARGET QUEUE FILE --------------------------------------------------


def work(target: str, queue: str, effects: Path) -> None:
    """Runs until SIGTERM. Says each settlement on its standard output, and leaves a mark for each finished handler."""
    marks = effects.open("a", buffering=1)

    def settled(one: Settled) -> None:
        outcome = "refused" if isinstance(one.answer, JobwireError) else one.verb
        print(f"{one.job.id} {one.fence} {outcome}", flush=True)

    def finish(context: JobContext) -> str:
        """What a real handler would do outside; the fence is what lets the outside refuse a late one."""
        marks.write(f"{context.job.id} {context.fence}\n")
        return "done"

    worker = Worker(
        target,
        queues=[queue],
        concurrency=8,
        lease_duration=3,
        grace=1,
        id=worker_id(queue, os.getpid()),
        on_settled=settled,
    )

    @worker.handler("resize")
    def resize(context: JobContext) -> str:
        """A plain function runs in a thread."""
        time.sleep(random.uniform(0.05, 0.25))  # stands for the work
        return finish(context)

    @worker.handler("email")
    @worker.handler("later")
    async def email(context: JobContext) -> str:
        await asyncio.sleep(random.uniform(0.05, 0.25))
        return finish(context)

    @worker.handler("report")
    async def report(context: JobContext) -> str:
        for page in range(1, 4):
            await asyncio.sleep(0.1)
            await context.report(page / 3, f"page {page} of 3")
        return finish(context)

    @worker.handler("flaky")
    async def flaky(context: JobContext) -> str:
        await asyncio.sleep(0.05)
        if context.job.attempt < context.json()["succeeds_at"]:
            raise ConnectionError("the other side hung up")
        return finish(context)

    @worker.handler("broken")
    async def broken(context: JobContext) -> str:
        raise PermanentError("no such address", code="NO_SUCH_ADDRESS")

    @worker.handler("hopeless")
    async def hopeless(context: JobContext) -> str:
        raise TimeoutError("and it will be no better next time")

    @worker.handler("endless")
    async def endless(context: JobContext) -> str:
        await asyncio.Event().wait()
        return finish(context)

    @worker.handler("unwanted")
    async def unwanted(context: JobContext) -> str:
        return finish(context)

    worker.run_forever()


def worker_id(queue: str, pid: int) -> str:
    """By which the server's account names the worker of that process."""
    return f"{queue}-{pid}"


# --- the jobs ------------------------------------------------------------------------------------------------


def make_jobs(queue: str, count: int) -> list[Job]:
    """All kinds, mixed, of all priorities; only two that never end by themselves, as each of them takes up a slot."""
    quick = RetryPolicy(max_retries=2, initial_delay=Duration(nanos=300_000_000), max_delay=Duration(seconds=1))
    soon = datetime.now(UTC)
    jobs: list[Job] = []
    ending = [type for type in EXPECTED if type != "endless"]
    types = ["endless"] * 2 + random.choices(ending, weights=[30, 25, 8, 12, 8, 5, 4, 5], k=count - 2)
    random.shuffle(types)
    for n, type in enumerate(types):
        jobs.append(new_job(type, {"n": n}, queue=queue, priority=random.randint(1, 10)))
        match type:
            case "flaky":
                jobs[-1] = new_job(
                    type, {"succeeds_at": random.randint(2, 3)}, queue=queue, priority=1, retry_policy=quick
                )
            case "hopeless":
                jobs[-1].retry_policy.CopyFrom(quick)
            case "endless":
                jobs[-1].ClearField("priority")
            case "later":
                jobs[-1].schedule_time.FromDatetime(soon + timedelta(seconds=random.uniform(1, 2)))
            case "unwanted":
                jobs[-1].schedule_time.FromDatetime(soon + timedelta(hours=1))
    return jobs


async def cancel_all(client: AsyncClient, jobs: Iterable[Job]) -> None:
    """One after the other: those that wait for their time, and those that would never end as soon as they run."""
    waiting = deque(jobs)
    while waiting:
        await asyncio.sleep(0.1)
        job = waiting.popleft()
        if job.type == "endless" and state_of(await client.get(job.id)) != "IN_PROGRESS":
            waiting.append(job)
        else:
            await client.cancel(job.id, reason="not wanted any more", grace=5)


# --- child processes -----------------------------------------------------------------------------------------


class Children:
    """Processes in sessions of their own, so that Ctrl-C reaches this process alone, which then ends them."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._alive: set[Process] = set()

    @asynccontextmanager
    async def child(self, *arguments: str) -> AsyncIterator[Process]:
        """It has ended, and has been waited for, when the block is left."""
        with self._log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=errors, start_new_session=True
            )
        self._alive.add(process)
        try:
            yield process
        finally:
            await self._end(process)
            self._alive.discard(process)

    def kill(self) -> None:
        for process in self._alive:
            if process.returncode is None:
                process.kill()

    @staticmethod
    async def _end(process: Process) -> None:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                # Read to the end, or a child that still writes would wait for us.
                await asyncio.gather(process.wait(), process.stdout.read() if process.stdout else asyncio.sleep(0))
        except TimeoutError:
            process.kill()
            await process.wait()


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


class Settlements:
    """Those the workers have told of."""

    def __init__(self, kill_at: int) -> None:
        self._kill_at = kill_at
        self.count = 0
        self.completed: Counter[str] = Counter()
        self.kill_now = asyncio.Event()

    async def listen(self, worker: Process) -> None:
        while line := await line_of(worker):
            job_id, _, outcome = line.split()
            self.count += 1
            self.completed[job_id] += outcome == "complete"
            if self.count >= self._kill_at:
                self.kill_now.set()


# --- what is shown -------------------------------------------------------------------------------------------


class Screen:
    """Counts by state, redrawn in place on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._live = None
        if Console is not None and sys.stdout.isatty():
            self._live = Live(refresh_per_second=8, transient=True)
        self._shown = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, words: str) -> None:
        if self._live:
            self._live.console.print(words, highlight=False, markup=False)
        else:
            print(words, flush=True)

    def show(self, counts: Counter[str], total: int, settlements: int) -> None:
        if self._live:
            table = Table(title=f"{settlements} settlements", title_justify="left", show_header=False, box=None)
            for state in STATES[:-1]:
                bar = "█" * round(50 * counts[state] / total)
                table.add_row(state, str(counts[state]), f"[{_color(state)}]{bar}[/]")
            self._live.update(table)
        elif time.monotonic() - self._shown > 1:
            self._shown = time.monotonic()
            print("  ".join(f"{state} {counts[state]}" for state in STATES if counts[state]), flush=True)


def _color(state: str) -> str:
    return {"COMPLETED": "green", "FAILED": "red", "CANCELED": "yellow", "IN_PROGRESS": "cyan"}.get(state, "blue")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if Console is not None:
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for n, name in enumerate(header):
            table.add_column(name, justify="right" if n else "left")
        for row in rows:
            table.add_row(*row, style="bold" if row is rows[-1] else None)
        Console().print(table)
        return
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    print(title)
    for first, *others in [header, *rows]:
        numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *numbers]))


# --- the account ---------------------------------------------------------------------------------------------


def state_of(job: Job) -> str:
    return JobState.Name(job.state).removeprefix("JOB_STATE_")


def outcomes(job: Job) -> Counter[str]:
    return Counter(AttemptOutcome.Name(attempt.outcome).removeprefix("ATTEMPT_OUTCOME_") for attempt in job.attempts)


def print_totals(jobs: Iterable[Job], seconds: float) -> None:
    by_type: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for job in jobs:
        attempts = outcomes(job)
        row = Counter(
            {
                "jobs": 1,
                state_of(job): 1,
                "retries": job.retry_count,
                "interrupted": attempts["INTERRUPTED"],
                "attempts": len(job.attempts),
            }
        )
        by_type[job.type] += row
        by_type["all"] += row
    columns = ["jobs", "COMPLETED", "FAILED", "CANCELED", "attempts", "retries", "interrupted"]
    rows = [
        [type, *(str(by_type[type][column]) for column in columns)]
        for type in [*(type for type in EXPECTED if type in by_type), "all"]
    ]
    print_table(f"What the server says, after {seconds:.1f} s", ["type", *(name.lower() for name in columns)], rows)


def faults(created: dict[str, Job], found: dict[str, Job], settlements: Settlements, effects: Path) -> list[str]:
    """What must not be, a line each."""
    marks: defaultdict[str, list[int]] = defaultdict(list)
    for line in effects.read_text().splitlines() if effects.exists() else ():
        job_id, fence = line.split()
        marks[job_id].append(int(fence))
    wrong = []
    for job_id, made in created.items():
        job = found.get(job_id)
        if job is None:
            wrong.append(f"{job_id} ({made.type}): the server does not know it any more")
            continue
        state, attempts, fences = state_of(job), outcomes(job), marks[job_id]
        complaints = []
        if state not in ENDED:
            complaints.append(f"has not ended, it is {state}")
        elif state != EXPECTED[made.type]:
            complaints.append(f"ended {state} instead of {EXPECTED[made.type]}")
        if attempts["COMPLETED"] != (state == "COMPLETED"):
            complaints.append(f"was completed {attempts['COMPLETED']} times and is {state}")
        if settlements.completed[job_id] > attempts["COMPLETED"]:
            complaints.append(f"workers were told {settlements.completed[job_id]} times that it is completed")
        if len(set(fences)) < len(fences):
            complaints.append(f"one fence of it was run twice: {fences}")
        if state == "COMPLETED" and job.fence not in fences:
            complaints.append(f"completed under fence {job.fence}, but its handler ran under {fences}")
        if len(fences) > attempts["COMPLETED"] + attempts["INTERRUPTED"]:
            complaints.append(f"its handler finished {len(fences)} times, and no killed worker explains that")
        wrong += (f"{job_id} ({made.type}): {complaint}" for complaint in complaints)
    return wrong


# --- the demo ------------------------------------------------------------------------------------------------


async def demo(store: str, count: int, folder: Path, screen: Screen, children: Children) -> int:
    began = time.monotonic()
    queue = f"demo-{random.getrandbits(32):08x}"
    effects, log = folder / "effects", folder / "log"
    kill_at = min(KILL_AT, count // 5)
    settlements = Settlements(kill_at)
    serve = ["-m", "jobwire_server", "serve", "--store", store, "--listen", "127.0.0.1:0", "--log-level", "warning"]
    with screen:
        async with children.child(*serve) as server:
            first = await line_of(server)
            if not first.startswith("listening on "):
                return give_up(["The server did not start."], log)
            target = first.removeprefix("listening on ")
            screen.say(f"A server at {target}, store {store}")
            program = [__file__, "--work", target, queue, str(effects)]
            async with (
                AsyncClient(target) as client,
                children.child(*program) as victim,
                children.child(*program) as survivor,
                asyncio.TaskGroup() as tasks,
            ):
                screen.say(f"Two workers, processes {victim.pid} and {survivor.pid}")
                background = [
                    tasks.create_task(settlements.listen(victim)),
                    tasks.create_task(settlements.listen(survivor)),
                ]
                asked = make_jobs(queue, count)
                answers = await client.create_many(asked)
                created = {}
                for job, wanted in zip(answers, asked, strict=True):
                    if isinstance(job, Job):
                        job.type = wanted.type  # the answer says what only the server knew
                        created[job.id] = job
                if len(created) < count:
                    refused = next(answer for answer in answers if isinstance(answer, JobwireError))
                    screen.say(f"{count - len(created)} creates were refused: {refused}")
                screen.say(f"A producer has created {len(created)} jobs")
                killing = tasks.create_task(
                    kill(victim, worker_id(queue, victim.pid), client, created, settlements, screen)
                )
                unwanted = [job for job in created.values() if EXPECTED[job.type] == "CANCELED"]
                background += [killing, tasks.create_task(cancel_all(client, unwanted))]
                found = await watch(client, created, settlements, screen)
                seconds = time.monotonic() - began
                for task in background:
                    task.cancel()
    print_totals(found.values(), seconds)
    wrong = faults(created, found, settlements, effects)
    if killing.cancelled():
        wrong.append(f"there were only {settlements.count} settlements, so no worker was killed")
    else:
        print(fate(victim.pid, killing.result(), found))
    if wrong or len(created) < count:
        return give_up(wrong, log)
    print(f"All {len(created)} jobs have ended, none was completed twice.")
    return 0


def give_up(wrong: Iterable[str], log: Path) -> int:
    """Says what is wrong; the exit code."""
    print("\n".join(wrong), file=sys.stderr)
    print(f"The log of server and workers ends with:\n{log.read_text()[-4000:]}", file=sys.stderr)
    return 1


async def kill(
    victim: Process,
    victim_id: str,
    client: AsyncClient,
    created: Iterable[str],
    settlements: Settlements,
    screen: Screen,
) -> list[Job]:
    """Kills the worker in time; the jobs that it held then, as the server had them."""
    await settlements.kill_now.wait()
    victim.kill()
    await victim.wait()
    # Its leases outlive it by seconds, so that what they are read from is no longer changing.
    jobs = await client.get_many(created)
    held = [job for job in jobs if state_of(job) == "IN_PROGRESS" and job.lease.worker_id == victim_id]
    screen.say(
        f"kill -9 of worker process {victim.pid} after {settlements.count} settlements; jobs it held: {len(held)}"
    )
    return held


def fate(pid: int, held: Sequence[Job], found: dict[str, Job]) -> str:
    """What became of the jobs that the killed worker held."""
    fates: Counter[str] = Counter()
    for before in held:
        after = found.get(before.id, before)
        if after.fence > before.fence:
            # Of a delivery that was not acknowledged the server counts no attempt and no interruption.
            fates[
                "ran again elsewhere" if before.lease.acknowledged else "had only just been delivered and ran elsewhere"
            ] += 1
        elif state_of(after) == "CANCELED":
            fates["had been cancelled"] += 1
        elif state_of(after) in ENDED:
            fates["had been reported with its last breath"] += 1
        else:
            fates["never ended"] += 1
    words = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
    return f"Worker {pid} held {len(held)} {'job' if len(held) == 1 else 'jobs'} when it was killed: {words or 'none'}."


async def watch(
    client: AsyncClient, created: dict[str, Job], settlements: Settlements, screen: Screen
) -> dict[str, Job]:
    """Reads all jobs back again and again, until all have ended or it has taken too long."""
    latest = time.monotonic() + PATIENCE
    while True:
        found = {job.id: job for job in await client.get_many(created)}
        counts = Counter(state_of(job) for job in found.values())
        screen.show(counts, len(created), settlements.count)
        if sum(counts[state] for state in ENDED) == len(created) or time.monotonic() > latest:
            return found
        await asyncio.sleep(0.25)


async def until_signal(store: str, count: int, folder: Path) -> int:
    """A signal ends the demo's children as well, a second one kills them; both times they are waited for."""
    task = asyncio.current_task()
    assert task is not None
    screen, children = Screen(), Children(folder / "log")
    is_stopping = False

    def stop() -> None:
        nonlocal is_stopping
        if is_stopping:
            children.kill()
            return
        is_stopping = True
        task.cancel()
        screen.say("stopping server and workers (again: kill them)")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return await demo(store, count, folder, screen, children)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", default="", metavar="URL", help="default: a SQLite file in a temporary folder")
    parser.add_argument("--jobs", type=int, default=500, metavar="N", help=f"default: 500, at least {LEAST_JOBS}")
    parser.add_argument("--work", nargs=3, metavar=("TARGET", "QUEUE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        target, queue, effects = arguments.work
        work(target, queue, Path(effects))
        return 0
    if arguments.jobs < LEAST_JOBS:
        parser.error(f"--jobs {arguments.jobs}: at least {LEAST_JOBS}, or all may have ended before a worker is killed")
    with tempfile.TemporaryDirectory(prefix="jobwire-demo-") as name:
        folder = Path(name)
        try:
            return asyncio.run(until_signal(arguments.store or f"sqlite:///{folder}/jobs.db", arguments.jobs, folder))
        except asyncio.CancelledError:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the folder is still to be deleted
            print("Interrupted; server and workers have ended.", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
