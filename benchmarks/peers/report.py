"""The figures as JSON, and as a table for docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.machine import machine
from benchmarks.peers.contestants import CONTESTANTS, MEANINGS, Contestant
from benchmarks.peers.engines import INITDB, PG_ISREADY, Program
from benchmarks.peers.installing import NPM
from benchmarks.peers.rounds import Present, Rates, jobs_of

COMMAND: Final = "make bench-peers"
ENOUGH: Final = 5
"""Rounds from which on a median counts."""


def figures(present: Sequence[Present], not_installed: Mapping[str, str], rates: Rates, *, jobs: int) -> dict[str, Any]:
    """What is committed. It names no path and no host of this machine."""
    contestants = [each.contestant for each in present]
    return {
        "machine": machine(),
        "jobs": {each.name: jobs_of(each, jobs) for each in contestants},
        "lives_per_second": {name: round(statistics.median(taken)) for name, taken in rates.items()},
        "spread": {
            name: {
                "lowest": round(min(taken)),
                "highest": round(max(taken)),
                "rounds": [round(rate) for rate in taken],
            }
            for name, taken in rates.items()
        },
        "ratios": {
            ours.name: {
                peer.name: _ratio(rates[ours.name], rates[peer.name]) for peer in contestants if not peer.is_ours
            }
            for ours in contestants
            if ours.is_ours
        },
        "ok_means": {each.name: each.ok_means for each in contestants},
        "versions": _versions(contestants),
        "not_installed": dict(not_installed),
    }


def table(told: Mapping[str, Any]) -> str:
    """Markdown, the fastest of each meaning first."""
    hows = {each.name: each.how for each in CONTESTANTS}
    machine = told["machine"]
    rounds = max((len(spread["rounds"]) for spread in told["spread"].values()), default=0)
    most = max(told["jobs"].values(), default=0)
    source = f"`{told['command']}`, {machine['date']}, {machine['cores']} cores of {machine['cpu']}"
    trial = "" if rounds >= ENOUGH else " **A trial: so few rounds compare nothing.**"
    rows = [
        f"{source}: median of {rounds} rounds in turns, up to {most:,} jobs each.{trial}",
        "",
        "| OK means | | how | lives/s | lowest – highest |",
        "|---|---|---|---:|---:|",
    ]
    for meaning in MEANINGS:
        for name in ranked(told, meaning):
            spread = told["spread"][name]
            rows.append(
                f"| {meaning} | {name} | {hows.get(name, '')} | {told['lives_per_second'][name]:,}"
                f" | {spread['lowest']:,} – {spread['highest']:,} |"
            )
    rows += [f"| | {name} | not installed: {reason} | | |" for name, reason in told["not_installed"].items()]
    return "\n".join([*rows, *_ratio_rows(told)])


def _ratio_rows(told: Mapping[str, Any]) -> list[str]:
    """How many times the peer's rate jobwire's was, round by round."""
    ours = list(told["ratios"])
    peers = [name for meaning in MEANINGS for name in ranked(told, meaning) if name not in ours]
    if not ours or not peers:
        return []
    rows = ["", "Times the peer's rate in the same round, median (lowest – highest):", ""]
    rows += [f"| | {' | '.join(ours)} |", f"|---|{'---|' * len(ours)}"]
    for peer in peers:
        ratios = [told["ratios"][name][peer] for name in ours]
        cells = [f"{each['median']} ({each['lowest']} – {each['highest']})" for each in ratios]
        rows.append(f"| {peer} | {' | '.join(cells)} |")
    return rows


def ranked(told: Mapping[str, Any], meaning: str) -> list[str]:
    """Names of those whose OK means that, the fastest first."""
    names = [name for name, means in told["ok_means"].items() if means == meaning]
    return sorted(names, key=lambda name: -told["lives_per_second"][name])


def _ratio(ours: Sequence[float], peers: Sequence[float]) -> dict[str, float]:
    """Of the rates of each round, since a round is what the two have in common."""
    ratios = [our / peer for our, peer in zip(ours, peers, strict=True)]
    return {
        "median": round(statistics.median(ratios), 2),
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
    }


def _versions(contestants: Sequence[Contestant]) -> dict[str, str]:
    versions: dict[str, str] = {}
    programs: dict[Program, None] = {}
    for each in contestants:
        versions |= each.recipe.versions()
        programs |= dict.fromkeys([*each.recipe.programs, *each.engine_programs])
    for other in (INITDB, PG_ISREADY, NPM):  # they come with those that count
        programs.pop(other, None)
    return versions | {program.name: program.version for program in programs}
