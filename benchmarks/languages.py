"""The command `python -m benchmarks.languages`: the same calls from Go and from Python, side by side."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import click

from benchmarks import lives, machine, page
from benchmarks.servers import has_engine, servers

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
COMMAND: Final = "make bench-languages"
_BINARY: Final = ROOT / "build" / "benchmark-go"

Rates = dict[tuple[str, str, int], dict[str, list[float]]]
"""Language, store and number of the server's processes → figure → jobs a second in each round."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--runs", default=3, type=click.IntRange(1), help="Rounds, in turns, of which the median counts.")
@click.option("--seconds", default=2.0, type=click.FloatRange(0.01), help="That each kind of creates goes on.")
@click.option("--publish", is_flag=True, help="Write the table into docs/performance.md.")
def main(runs: int, seconds: float, publish: bool) -> None:
    """Creates and works off jobs from Go and from Python: on SQLite, and on Redis with one and with two processes."""
    engine = "redis" if has_engine("redis") else "valkey"
    languages = programs()
    rates = measure(languages, [("sqlite", 1), (engine, 1), (engine, 2)], runs=runs, seconds=seconds)
    told = table(rates, runs=runs)
    if "Go" not in languages:
        told += "\n\nGo: not measured, there is no `go` on this machine."
    click.echo(told)
    if publish:
        page.put(PAGE, COMMAND, told)


def programs() -> dict[str, list[str]]:
    """By language: the command, whose arguments are an address and seconds. Builds what has to be built."""
    found = {"Python": [sys.executable, "-m", "benchmarks.from_python"]}
    if (go := shutil.which("go")) is not None:
        subprocess.run([go, "build", "-o", str(_BINARY), "."], cwd=ROOT / "benchmarks" / "go", check=True)
        found["Go"] = [str(_BINARY)]
    return found


def measure(languages: dict[str, list[str]], stores: Sequence[tuple[str, int]], *, runs: int, seconds: float) -> Rates:
    """Each on an empty store. Raises lives.Miscounted when a server does not count what was done."""
    rates: Rates = {}
    for round_ in range(1, runs + 1):
        for store, processes in stores:
            for language, command in languages.items():
                click.echo(f"round {round_}: {language}, {store}, {processes} to serve", err=True)
                for line in _run(command, store, processes, seconds):
                    told = json.loads(line)
                    figures = rates.setdefault((language, store, processes), {})
                    figures.setdefault(told["figure"], []).append(told["rate"])
    return rates


def _run(command: list[str], store: str, processes: int, seconds: float) -> list[str]:
    with servers(store, 1, options=["--processes", str(processes)] if processes > 1 else []) as [server]:
        ran = subprocess.run(
            [*command, server.address, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        if asyncio.run(lives.completed(server)) == 0:
            raise lives.Miscounted("the server counts no completed job")
        return ran.stdout.splitlines()


def table(rates: Rates, *, runs: int) -> str:
    """Markdown: a row for each figure, a column for each server and language."""
    here = machine.machine()
    heads = [
        f"{language}, {store}{f', {processes} processes' if processes > 1 else ''}"
        for language, store, processes in rates
    ]
    source = f"`{COMMAND}`, {here['date']}, {here['cores']} cores of {here['cpu']}"
    lines = [
        f"{source}: jobs a second, medians of {runs} rounds in turns (lowest – highest).",
        "",
        f"| | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for figure in next(iter(rates.values())):
        cells = [_cell(found[figure]) for found in rates.values()]
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rounds: list[float]) -> str:
    return f"{median(rounds):,.0f} ({min(rounds):,.0f} – {max(rounds):,.0f})"


if __name__ == "__main__":
    main()
