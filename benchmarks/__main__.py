"""The command: `python -m benchmarks`."""

from __future__ import annotations

import asyncio
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import calls, lives
from benchmarks.lives import Timing
from benchmarks.servers import STORES, Server, free_port, has_engine, server, wait_for

BATCHES: Final = (1, 10, 100, 500)
RUNS: Final = 5


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--store", "stores", multiple=True, type=click.Choice(STORES), default=("sqlite", "valkey"))
@click.option("--batch", "batches", multiple=True, type=int, default=BATCHES, help="Jobs in one call.")
@click.option("--jobs", default=10_000, help="Jobs of one run; a tenth of it with batches of 1.")
@click.option("--runs", default=RUNS, help="Runs of each scenario, of which the median counts.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, as JSON.")
def main(stores: Sequence[str], batches: Sequence[int], jobs: int, runs: int, output: Path | None) -> None:
    """Measures jobwire on this machine: whole lives, creates, claims with settlements, single calls, pick-up.

    Client, server and store share the machine. Timings of one machine are comparable with each other only, and only
    within one run: look at the spread before you believe a difference.
    """
    figures: dict[str, Any] = {"machine": platform.platform(), "python": platform.python_version(), "runs": runs}
    for store in stores:
        if not has_engine(store):
            click.echo(f"{store}: SKIPPED, there is no such server on this machine")
            continue
        figures[store] = asyncio.run(_measure(store, batches, jobs, runs))
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n")
        click.echo(f"written: {output}")


async def _measure(store: str, batches: Sequence[int], jobs: int, runs: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with server(store) as running:
        done = 0
        for batch in batches:
            number = jobs if batch > 1 else max(jobs // 10, 1)
            scenarios: dict[str, Callable[..., Any]] = {
                "whole lives": lives.whole_lives,
                "creates": lives.creates,
                "claims and settlements": lives.claims_and_settlements,
            }
            timings: dict[str, list[Timing]] = {name: [] for name in scenarios}
            for run in range(runs):
                for name, scenario in scenarios.items():
                    _progress(f"{store}: batches of {batch}, run {run + 1} of {runs}: {name}")
                    timings[name].append(await scenario(running, jobs=number, batch=batch))
                done += 2 * number
            counted = await lives.completed(running)
            assert counted == done, f"{done} jobs were completed, the store counts {counted}"
            for name, taken in timings.items():
                figures[f"{name}, batches of {batch}"] = _told(store, f"{name}, batches of {batch}", taken)
        figures |= await _single_calls(store, running, jobs, runs)
    return figures


async def _single_calls(store: str, running: Server, jobs: int, runs: int) -> dict[str, Any]:
    ratios = []
    with _empty_handler() as address:
        for run in range(runs):
            _progress(f"{store}: single calls, run {run + 1} of {runs}")
            empty = await calls.empty_calls(address, calls=max(jobs // 5, 64))
            create = await calls.unary_creates(running, calls=max(jobs // 5, 64))
            ratios.append((create / empty, create, empty))
    _, create, empty = sorted(ratios)[len(ratios) // 2]
    _progress("")
    share = statistics.median(ratio for ratio, _, _ in ratios)
    click.echo(
        f"{store:8} single creates, {calls.IN_FLIGHT} in flight: {create:,.0f} /s,"
        f" {share:.2f} of an empty handler's {empty:,.0f} /s"
    )
    times = sorted(await calls.pick_up(running, jobs=max(jobs // 50, 20)))
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]
    click.echo(f"{store:8} create to an idle worker's stream: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return {
        "single creates": {"rate": create, "of an empty handler": share},
        "pick-up, ms": {"p50": p50, "p99": p99},
    }


def _told(store: str, name: str, taken: Sequence[Timing]) -> dict[str, float]:
    rates = [timing.rate for timing in taken]
    figure = {
        "rate": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "server_micros": statistics.median(timing.server_micros for timing in taken),
        "engine_micros": statistics.median(timing.engine_micros for timing in taken),
    }
    _progress("")
    click.echo(
        f"{store:8} {name}: {figure['rate']:,.0f} /s ({figure['lowest']:,.0f} to {figure['highest']:,.0f}),"
        f" CPU of a job: server {figure['server_micros']:.0f} µs, engine {figure['engine_micros']:.0f} µs"
    )
    return figure


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def _empty_handler() -> Iterator[str]:
    port = free_port()
    address = f"127.0.0.1:{port}"
    program = f"import asyncio; from benchmarks.calls import serve_nothing; asyncio.run(serve_nothing('{address}'))"
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_for(port, process)
        yield address
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
