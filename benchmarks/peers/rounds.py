"""Runs the contestants in turns, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.installing import ROOT, NotInstalled, install, require

LONGEST: Final = 600.0
"""Seconds for one run, the start of the peer's own worker included."""

Rates = dict[str, list[float]]


class Failed(Exception):
    """A contestant did not do its work; no figure of this run can be trusted."""


@dataclass(frozen=True, slots=True)
class Present:
    """A contestant that can take part."""

    contestant: Contestant
    command: Sequence[str]


def assemble(contestants: Sequence[Contestant], tell: Callable[[str], None]) -> tuple[list[Present], Mapping[str, str]]:
    """Installs what can be installed; and why the others cannot take part, by name."""
    present: list[Present] = []
    not_installed: dict[str, str] = {}
    for contestant in contestants:
        try:
            require([*contestant.engine_programs, *contestant.recipe.programs])
            present.append(Present(contestant, install(contestant.name, contestant.recipe, tell)))
        except NotInstalled as reason:
            tell(f"{contestant.name}: NOT INSTALLED: {reason}")
            not_installed[contestant.name] = str(reason)
    return present, not_installed


def measure(present: Sequence[Present], *, runs: int, jobs: int, tell: Callable[[str], None]) -> Rates:
    """Lives a second of each contestant in each round. Raises Failed."""
    rates: Rates = {each.contestant.name: [] for each in present}
    for number in range(runs):
        first = number % max(len(present), 1)  # nobody always runs in the wake of the same one
        for each in [*present[first:], *present[:first]]:
            rate = _run(each, jobs_of(each.contestant, jobs))
            rates[each.contestant.name].append(rate)
            tell(f"round {number + 1} of {runs}: {each.contestant.name}: {rate:,.0f} /s")
    return rates


def jobs_of(contestant: Contestant, jobs: int) -> int:
    return max(int(jobs * contestant.share), 1)


def _run(present: Present, jobs: int) -> float:
    contestant = present.contestant
    with contestant.engine() as address:
        command = [*present.command, address, str(jobs), *contestant.arguments]
        # A session of its own: some start workers, which must not outlive them.
        driver = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            output, complaints = driver.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{contestant.name} was not done after {LONGEST:.0f} s") from error
        finally:
            if driver.returncode is None:  # it ends its workers itself, unless it does not end
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
    if driver.returncode:
        raise Failed(f"{contestant.name}: its driver ended with {driver.returncode}:\n{complaints[-2000:]}")
    told = _told(output)
    if not told.get("jobs") == told.get("completed") == jobs:
        raise Failed(f"{contestant.name}: {jobs} jobs were to be done, its driver tells {output.strip() or 'nothing'}")
    return float(jobs / told["seconds"])


def _told(output: str) -> dict[str, Any]:
    """The last line that a driver prints."""
    lines = output.splitlines()
    told: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return told
