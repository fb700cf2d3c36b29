"""What a person sees: a picture that is redrawn on a terminal, lines elsewhere, and the totals at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.python.demo.crew import Fault
from examples.python.demo.kinds import ENDS
from examples.python.demo.verdict import fates, outcomes
from examples.python.demo.watch import Sight
from examples.python.demo.worker import CONCURRENCY
from jobwire_client import Job, state_name

BAR = 40
COLOURS = {
    "SCHEDULED": "blue",
    "QUEUED": "cyan",
    "IN_PROGRESS": "yellow",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELED": "magenta",
    "EXPIRED": "magenta",
}
LINE_EVERY = 2.0
"""Seconds between two lines where no terminal is."""


class Screen:
    """What the demo says while it runs, above a picture of where the jobs are."""

    def __init__(self) -> None:
        self._live = Live(refresh_per_second=8, transient=True) if sys.stdout.isatty() else None
        self._said = time.monotonic()

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

    def show(self, sight: Sight, total: int, workers: Sequence[str]) -> None:
        """Where the jobs are, by state, and how busy each worker is."""
        if self._live:
            self._live.update(_picture(sight, total, workers))
        elif time.monotonic() - self._said > LINE_EVERY:
            self._said = time.monotonic()
            print("  ".join(f"{state} {sight.counts[state]}" for state in COLOURS if sight.counts[state]), flush=True)


def _picture(sight: Sight, total: int, workers: Sequence[str]) -> Table:
    picture = Table(show_header=False, box=None)
    for state, colour in COLOURS.items():
        jobs = sight.counts[state]
        picture.add_row(state, str(jobs), Text("█" * round(BAR * jobs / total), colour))
    for worker in workers:
        held = len(sight.held_by(worker))
        busy = Text("■" * held, "yellow").append("·" * (CONCURRENCY - held), "dim")
        picture.add_row(worker, str(held), busy)
    return picture


def print_totals(found: Sequence[Job], faults: Sequence[Fault], seconds: float) -> None:
    """What the server says in the end."""
    console = Console(highlight=False)
    console.print()
    console.print(_by_type(found, f"What the server says after {seconds:.1f} s"))
    console.print(_of_faults(faults, found))


def ends(states: Counter[str]) -> str:
    """How jobs have ended, in words."""
    return ", ".join(f"{count} {state.lower()}" for state, count in states.most_common())


def _by_type(found: Sequence[Job], title: str) -> Table:
    table = _table(title, "type", "jobs", "attempts", "retries", "interrupted", "given back", "how they ended")
    table.columns[-1].justify = "left"
    for type in ENDS:
        jobs = [job for job in found if job.type == type]
        table.add_row(type, *_sums(jobs), ends(Counter(state_name(job.state) for job in jobs)))
    table.add_row("all", *_sums(found), style="bold")
    return table


def _sums(jobs: Sequence[Job]) -> list[str]:
    attempts = Counter[str]()
    for job in jobs:
        attempts += outcomes(job)
    sums = [len(jobs), attempts.total(), sum(job.retry_count for job in jobs)]
    return [str(each) for each in (*sums, attempts["INTERRUPTED"], attempts["RELEASED"])]


def _of_faults(faults: Sequence[Fault], found: Sequence[Job]) -> Table:
    killed = sum(fault.how == "kill -9" for fault in faults)
    title = f"{killed} workers killed, {len(faults) - killed} redeployed while they were at work"
    table = _table(title, "worker", "jobs it held", "of running", "what became of those it held")
    table.columns[-1].justify = "left"
    for fault in faults:
        became = ", ".join(f"{count} {fate}" for fate, count in fates(fault, found).most_common())
        table.add_row(f"{fault.worker_id}, {fault.how}", str(len(fault.held)), str(fault.running), became)
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table
