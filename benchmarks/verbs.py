"""The verbs of a store alone, without gRPC: `python -m benchmarks.verbs`.

What is measured is CPU, of this process (from domain values to domain values) and of the engine's: it depends less on
who else uses the machine than any clock does. A submission of 200 bytes, a result of 2. Values that callers bring
along (jobs, tokens, Moves) are made outside of what is measured.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import click
import uvloop
from redis import Redis

from benchmarks.servers import STORES, cpu_seconds, engine, has_engine
from jobwire_server.domain import policy
from jobwire_server.domain.change import new_tokens
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, Job, NewJob
from jobwire_server.rpc.ids import JobIds
from jobwire_server.store.base import ClaimRequest, CreateOutcome, Renewal, Store
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.sqlite.store import SqliteStore

SUBMISSION: Final = b"x" * 200
RESULT: Final = b"ok"
_ids: Final = JobIds()

VERBS: Final = ("create", "claim", "renew", "complete", "life")
"""In the order of a job's life; `renew` is its acknowledgment. A life is create, claim and complete."""

Item = TypeVar("Item")


@dataclass(slots=True)
class Cost:
    """What one verb took in one round, in microseconds for each job; and for each call by the clock."""

    own: float = 0.0
    engine: float = 0.0
    call: float = 0.0


@dataclass(slots=True)
class Bench:
    """One store with batches of one size, and what its rounds have cost."""

    name: str
    store: Store
    engine_pid: int | None
    client: Redis | None
    """Of the engine, for its statistics."""
    batch: int
    rounds: dict[str, list[Cost]] = field(default_factory=lambda: {verb: [] for verb in VERBS})
    commands: dict[str, float] = field(default_factory=dict)
    """Commands that the engine ran for each life, by name."""
    bytes_queued: float = 0.0
    """Memory of the engine for each queued job."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--store", "stores", multiple=True, type=click.Choice(STORES), default=("sqlite", "valkey"))
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 100, 500), help="Jobs in one call.")
@click.option("--jobs", default=5_000, help="Jobs of one round; a tenth of it with batches of 1.")
@click.option("--rounds", default=7, help="Rounds, of which the median counts; all stores take turns.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, as JSON.")
def main(stores: Sequence[str], batches: Sequence[int], jobs: int, rounds: int, output: Path | None) -> None:
    """Measures what each verb of a store costs: CPU of a job here and in the engine, commands, memory."""
    there = [store for store in stores if has_engine(store)]
    for store in set(stores) - set(there):
        click.echo(f"{store}: SKIPPED, there is no such server on this machine")
    gc.freeze()  # and rarely, and on this loop: as the server has it
    gc.set_threshold(20_000, 20, 20)
    figures = uvloop.run(_measure(there, batches, jobs, rounds))
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n")
        click.echo(f"written: {output}")


async def _measure(stores: Sequence[str], batches: Sequence[int], jobs: int, rounds: int) -> dict[str, Any]:
    figures = {}
    async with AsyncExitStack() as stack:
        benches = [await stack.enter_async_context(_bench(store, batch)) for store in stores for batch in batches]
        for bench in benches:
            await _warm_up(bench, jobs)
        for _ in range(rounds):
            for bench in benches:
                await _round(bench, jobs if bench.batch > 1 else max(jobs // 10, 1))
        for bench in benches:
            figures[f"{bench.name}, batches of {bench.batch}"] = _told(bench)
    return figures


@asynccontextmanager
async def _bench(name: str, batch: int) -> AsyncIterator[Bench]:
    """An empty store of its own, engine included."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="jobwire-bench-")))
        store: Store
        pid = client = None
        if name in ("valkey", "redis"):
            url, pid = stack.enter_context(engine(name, folder))
            client = stack.enter_context(Redis.from_url(url))
            store = RedisStore(url)
        else:
            store = SqliteStore(None if name == "memory" else str(folder / "jobwire.db"))
        await store.open()
        try:
            yield Bench(name, store, pid, client, batch)
        finally:
            await store.close()


# --- a round ------------------------------------------------------------------------------------------------


async def _warm_up(bench: Bench, jobs: int) -> None:
    """Loads what is loaded once, and looks at what needs no clock: memory and commands."""
    await _round(bench, 2 * bench.batch)
    before = _memory(bench)
    for part in _parts(_new_jobs(jobs), 500):
        await bench.store.create(part)
    bench.bytes_queued = (_memory(bench) - before) / jobs
    await _drain(bench)
    if bench.client is not None:
        bench.client.config_resetstat()
        await _round(bench, jobs, acknowledges=False)
        stats: dict[str, Any] = bench.client.info("commandstats")
        bench.commands = {
            name.removeprefix("cmdstat_"): stat["calls"] / jobs
            for name, stat in stats.items()
            if "|" not in name and name not in ("cmdstat_info", "cmdstat_config")
        }
    for costs in bench.rounds.values():
        costs.clear()


async def _round(bench: Bench, jobs: int, *, acknowledges: bool = True) -> None:
    """That many jobs through one verb after the other."""
    store, batch = bench.store, bench.batch
    new = _parts(_new_jobs(jobs), batch)
    wishes = [_wish(len(part)) for part in new]
    made = await _timed(bench, "create", new, store.create)
    assert all(each.outcome is CreateOutcome.CREATED for answer in made for each in answer)

    claims = await _timed(bench, "claim", wishes, lambda wish: store.claim("default", [wish]))
    claimed = [answer.claimed[0].jobs for answer in claims]
    assert sum(map(len, claimed)) == jobs

    if acknowledges:
        renewals = [[Renewal(job_id=job.id, token=_token(job)) for job in part] for part in claimed]
        renewed = await _timed(bench, "renew", renewals, store.renew)
        assert all(each.outcome is Outcome.OK for answer in renewed for each in answer)

    moves = [[policy.complete(job.id, _token(job), RESULT) for job in part] for part in claimed]
    moved = await _timed(bench, "complete", moves, store.move)
    assert all(each.outcome is Outcome.OK for answer in moved for each in answer)

    parts = [bench.rounds[verb][-1] for verb in ("create", "claim", "complete")]
    life = Cost(sum(each.own for each in parts), sum(each.engine for each in parts), sum(each.call for each in parts))
    bench.rounds["life"].append(life)


async def _drain(bench: Bench) -> None:
    while jobs := (await bench.store.claim("default", [_wish(500)])).claimed[0].jobs:
        await bench.store.move([policy.complete(job.id, _token(job), RESULT) for job in jobs])


Answer = TypeVar("Answer")


async def _timed(
    bench: Bench, verb: str, given: Sequence[Item], call: Callable[[Item], Awaitable[Answer]]
) -> list[Answer]:
    """The answers to one call after the other; what they took is noted."""
    answers = []
    clock, own, below = time.perf_counter(), time.process_time(), cpu_seconds(bench.engine_pid)
    for each in given:
        answers.append(await call(each))
    own, below, clock = time.process_time() - own, cpu_seconds(bench.engine_pid) - below, time.perf_counter() - clock
    jobs = len(given) * bench.batch
    bench.rounds[verb].append(Cost(1e6 * own / jobs, 1e6 * below / jobs, 1e6 * clock / len(given)))
    return answers


def _memory(bench: Bench) -> int:
    if bench.client is None:
        return 0
    used: int = bench.client.info("memory")["used_memory"]
    return used


def _new_jobs(number: int) -> list[NewJob]:
    ids = [_ids.make() for _ in range(number)]
    return [
        NewJob(id=id, submission=SUBMISSION, digest=sha256(id.encode()).digest(), id_given=False, type="bench")
        for id in ids
    ]


def _wish(number: int) -> ClaimRequest:
    return ClaimRequest(
        worker_id="bench",
        session=1,
        max_in_flight=1_000_000,
        tokens=new_tokens(number),
        lease_duration=30 * SECOND,
        delivery_timeout=10 * SECOND,
    )


def _token(job: Job) -> bytes:
    assert job.token, "it is leased"
    return job.token


def _parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """All of that size: what is left over is left out."""
    return [items[first : first + size] for first in range(0, len(items) - size + 1, size)]


# --- the figures --------------------------------------------------------------------------------------------


def _told(bench: Bench) -> dict[str, Any]:
    click.echo(f"{bench.name}, batches of {bench.batch}: µs of CPU for each job, median (least, most)")
    figures: dict[str, Any] = {}
    for verb in VERBS:
        costs = bench.rounds[verb]
        own, below, call = ([getattr(cost, part) for cost in costs] for part in ("own", "engine", "call"))
        click.echo(
            f"  {verb:9} here {_spread(own)}   engine {_spread(below)}   a call {statistics.median(call):9.0f} µs"
        )
        figures[verb] = {
            "own_micros": statistics.median(own),
            "engine_micros": statistics.median(below),
            "call_micros": statistics.median(call),
        }
    if bench.client is not None:
        most = sorted(bench.commands.items(), key=lambda each: -each[1])
        told = ", ".join(f"{name} {calls:.2f}" for name, calls in most if calls >= 0.01)
        click.echo(f"  a queued job: {bench.bytes_queued:.0f} B; commands in a life: {told}")
        figures |= {"bytes_queued": bench.bytes_queued, "commands": sum(bench.commands.values())}
    return figures


def _spread(costs: Sequence[float]) -> str:
    return f"{statistics.median(costs):6.1f} ({min(costs):.1f}, {max(costs):.1f})"


if __name__ == "__main__":
    main()
