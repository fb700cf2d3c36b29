"""The command: `python -m benchmarks.peers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import page
from benchmarks.peers import chart, report
from benchmarks.peers.contestants import CONTESTANTS, Contestant
from benchmarks.peers.installing import ROOT
from benchmarks.peers.rounds import Failed, assemble, measure

RESULTS: Final = ROOT / "benchmarks" / "results" / "peers.json"
CHART: Final = ROOT / "docs" / "figures" / "peers.svg"
PAGE: Final = ROOT / "docs" / "performance.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--only", multiple=True, type=click.Choice([each.name for each in CONTESTANTS]), help="Repeatable; else all."
)
@click.option("--runs", default=5, type=click.IntRange(1), help="Rounds, of which the median counts.")
@click.option("--jobs", default=30_000, type=click.IntRange(1), help="Jobs of one run; the slow ones do a part of it.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures there only, as JSON.",
)
def main(only: Sequence[str], runs: int, jobs: int, output: Path | None) -> None:
    """Brings jobs through their lives with jobwire and each of its peers, in turns on this machine.

    Installs the peers' drivers into build/peers; programs such as PostgreSQL have to be there. Without --only and
    --output the figures go to benchmarks/results/peers.json, docs/figures/peers.svg and the table in
    docs/performance.md. Rates of one run are comparable with each other only.
    """
    contestants = [each for each in CONTESTANTS if not only or each.name in only]
    command = " ".join(["--only " + " --only ".join(only)] * bool(only) + [f"--runs {runs} --jobs {jobs}"])
    told = compare(contestants, runs=runs, jobs=jobs) | {"command": f"{report.COMMAND} ARGS='{command}'"}
    click.echo(report.table(told))
    if output is not None:
        _write(output, told)
    elif not only:
        _write(RESULTS, told)
        CHART.parent.mkdir(parents=True, exist_ok=True)
        CHART.write_text(chart.chart(told))
        page.put(PAGE, report.COMMAND, report.table(told))


def compare(contestants: Sequence[Contestant], *, runs: int, jobs: int) -> dict[str, Any]:
    """The figures. A contestant that is not installed is told by name and reason; one that does not do its work ends
    the run."""
    present, not_installed = assemble(contestants, _tell)
    try:
        rates = measure(present, runs=runs, jobs=jobs, tell=_tell)
    except Failed as failure:
        raise click.ClickException(str(failure)) from failure
    return report.figures(present, not_installed, rates, jobs=jobs)


def _write(path: Path, told: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=2) + "\n")
    click.echo(f"written: {path}")


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
