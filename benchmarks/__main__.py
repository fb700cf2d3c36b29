"""The command: `python -m benchmarks`."""

from __future__ import annotations

import asyncio
import json
import signal
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import machine, page, report
from benchmarks.scenario import FULL, QUICK, Scenario, Setup, Size
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import STORES, engine_version, has_engine

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results" / "jobwire.json"
PEERS: Final = ROOT / "benchmarks" / "results" / "peers.json"
CHART: Final = ROOT / "docs" / "figures" / report.CHART
PAGE: Final = ROOT / "docs" / "performance.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--scenario",
    "names",
    multiple=True,
    type=click.Choice([each.name for each in SCENARIOS]),
    help="Repeatable; else all.",
)
@click.option(
    "--store",
    "stores",
    multiple=True,
    type=click.Choice(STORES),
    help="Repeatable; else sqlite and redis, valkey where there is no redis.",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    help=f"Rounds, of which the median counts.  [default: {FULL.runs}; {QUICK.runs} when quick]",
)
@click.option("--quick", is_flag=True, help="Two minutes: few jobs, short backlogs. Printed only.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there only, as JSON."
)
@click.option("--list", "lists", is_flag=True, help="Say what there is to measure, and what is promised.")
def main(
    names: Sequence[str], stores: Sequence[str], runs: int | None, quick: bool, output: Path | None, lists: bool
) -> None:
    """Measures jobwire on this machine, and says what of its promises holds.

    Client, server and store share the machine. Timings are comparable within one run only: look at the spread before
    you believe a difference. A whole run without any option goes to benchmarks/results/jobwire.json,
    docs/figures/lives.svg and docs/performance.md; all others are printed.
    """
    scenarios = [each for each in SCENARIOS if not names or each.name in names]
    if lists:
        for each in scenarios:
            click.echo(f"{each.name}: {each.what}\n    Promised: {each.promises}")
        return
    size = QUICK if quick else FULL
    signal.signal(signal.SIGTERM, _interrupt)
    found = run(scenarios, stores or default_stores(), replace(size, runs=runs or size.runs))
    found["command"] = _command(names, stores, runs, quick)
    click.echo(report.tables(found))
    if output is not None:
        _write(output, found)
    if found["failed"]:
        raise click.ClickException("no figure of what has failed can be trusted, and nothing is published")
    if output is None and not (names or stores or runs or quick):
        _write(RESULTS, found)
        CHART.parent.mkdir(parents=True, exist_ok=True)
        CHART.write_text(report.chart(found))
        page.put(PAGE, report.COMMAND, report.section(found))


def run(scenarios: Sequence[Scenario], stores: Sequence[str], size: Size) -> dict[str, Any]:
    """The figures. What fails, or does not count what was done, has none, and the others go on."""
    not_measured = {store: "there is no such server on this machine" for store in stores if not has_engine(store)}
    turns = [(each, store) for each in scenarios for store in stores if store not in not_measured and each.fits(store)]
    results: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        whole = bar.add_task("", total=sum(each.weight for each, _ in turns))
        for scenario, store in turns:

            def tell(what: str, *, about: str = f"{scenario.name}, {store}") -> None:
                bar.update(whole, description=f"{about}: {what}")

            tell("starting")
            try:
                outcome = asyncio.run(scenario.measure(Setup(store, size, tell)))
            except Exception as error:  # noqa: BLE001  whatever it was: the scenarios before and after it stand
                failed[f"{scenario.name}, {store}"] = str(error) or type(error).__name__
                console.print(*traceback.format_exception(error), markup=False, soft_wrap=True)
            else:
                results.append(report.told(scenario, store, outcome))
                console.print(report.line(scenario, store, outcome), markup=False, soft_wrap=True)
            bar.advance(whole, scenario.weight)
    return {
        "machine": machine.machine(),
        "versions": machine.versions() | {store: version for store in stores if (version := engine_version(store))},
        "size": size.name,
        "runs": size.runs,
        "scenarios": results,
        "not_measured": not_measured,
        "failed": failed,
        "beside_peers": report.beside_peers(PEERS if scenarios == list(SCENARIOS) else None),
    }


def default_stores() -> list[str]:
    return ["sqlite", "redis" if has_engine("redis") else "valkey"]


def _command(names: Sequence[str], stores: Sequence[str], runs: int | None, quick: bool) -> str:
    words = [f"--scenario {name}" for name in names] + [f"--store {store}" for store in stores]
    words += [f"--runs {runs}"] if runs else []
    return ("make bench-quick" if quick else report.COMMAND) + (f" ARGS='{' '.join(words)}'" if words else "")


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    click.echo(f"written: {path}", err=True)


def _interrupt(*_: object) -> None:
    """SIGTERM ends it as Ctrl-C does: with what it has started. Raised here, in the middle of anything, an exception is
    lost where a callback's are; of Ctrl-C the event loop makes a cancellation."""
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
