"""What a run has found: as JSON, as tables and as a chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar, Group, draw
from benchmarks.figures import Figure, at_least, from_json
from benchmarks.scenario import FULL, Outcome, Scenario

COMMAND: Final = "make bench"
CHART: Final = "lives.svg"
_TITLE: Final = "Whole lives of jobs per second by the size of a batch: median, lowest and highest round"
ENOUGH: Final = 5
"""Rounds from which on a median of rates counts."""
MEANS: Final = {
    "sqlite": "SQLite, an OK is fsynced",
    "redis": "Redis, an OK is fsynced within 2 s",
    "valkey": "Valkey, an OK is fsynced within 2 s",
    "memory": "memory, an OK outlives nothing",
}

_BESIDE_PEERS: Final = (
    ("jobwire-redis", "bullmq", 2.0, None),
    ("jobwire-redis", "beanstalkd", None, 1.0),
    ("jobwire-sqlite", "bullmq", 2.0, None),
    ("jobwire-sqlite", "beanstalkd-fsync", 4.0, None),
    ("jobwire-sqlite", "beanstalkd", None, 1.0),
    ("jobwire-redis-always", "river", 1.2, 2.0),
)
"""Ours, the peer, what must hold and what is aimed at, in times the peer's rate."""


def told(scenario: Scenario, store: str, outcome: Outcome) -> dict[str, Any]:
    """One scenario on one store, for the JSON."""
    return {
        "scenario": scenario.name,
        "store": store,
        "counted": dict(outcome.counted),
        "figures": [figure.as_json() for figure in outcome.figures],
    }


def beside_peers(results: Path | None) -> dict[str, Any]:
    """What `make bench-peers` has found last, of what is promised."""
    if results is None or not results.exists():
        return {"date": "", "figures": []}
    found = json.loads(results.read_text())
    figures = []
    for ours, peer, must, aim in _BESIDE_PEERS:
        ratio = found["ratios"].get(ours, {}).get(peer)
        if ratio is not None:
            figures.append(
                Figure(
                    f"whole lives of {ours} beside {peer}",
                    "×",
                    [ratio["lowest"], ratio["median"], ratio["highest"]],
                    at_least(must) if must is not None else None,
                    at_least(aim) if aim is not None else None,
                ).as_json()
            )
    return {"date": found["machine"]["date"], "figures": figures}


def section(found: Mapping[str, Any]) -> str:
    """Of the page: the chart and the tables."""
    return f"![{_TITLE}](figures/{CHART})\n\n{tables(found)}"


def tables(found: Mapping[str, Any]) -> str:
    """Markdown: what is promised, then rates by the size of a batch, then all the rest."""
    parts = [_source(found), _promises(found), _by_batch(found), _rest(found), _counted(found)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def chart(found: Mapping[str, Any]) -> str:
    """Whole lives by the size of a batch, an SVG."""
    groups: dict[str, list[Bar]] = {}
    for store, figure in _figures(found):
        if figure.name == "whole lives":
            spread = min(figure.rounds), max(figure.rounds)
            groups.setdefault(store, []).append(Bar(f"{figure.batch} to a call", figure.median, *spread))
    return draw(_TITLE, [Group(MEANS[store], bars) for store, bars in groups.items()])


def line(scenario: Scenario, store: str, outcome: Outcome) -> str:
    """For people who wait."""
    figures = [
        f"  {figure.name}{f', batches of {figure.batch}' if figure.batch else ''}:"
        f" {figure.told(figure.median)} {figure.unit}{_verdict_in_words(figure)}"
        for figure in outcome.figures
    ]
    return "\n".join([f"{scenario.name}, {store}: {_in_words(outcome.counted)}", *figures])


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for each in found["scenarios"]:
        for figure in each["figures"]:
            yield each["store"], from_json(figure)


def _source(found: Mapping[str, Any]) -> list[str]:
    machine = found["machine"]
    source = f"`{found['command']}`, {machine['date']}, {machine['cores']} cores of {machine['cpu']}"
    is_enough = found["size"] == FULL.name and found["runs"] >= ENOUGH
    trial = "" if is_enough else " **A trial: so little compares nothing.**"
    return [f"{source}: medians of {found['runs']} rounds, with the lowest and the highest.{trial}"]


def _promises(found: Mapping[str, Any]) -> list[str]:
    peers = found["beside_peers"]
    rows = [_promise(figure, "") for figure in map(from_json, peers["figures"])]
    rows += [_promise(figure, store) for store, figure in _figures(found) if figure.is_promised]
    if not rows:
        return []
    head = ["| What is promised | store | Must | | Aim | | measured | lowest – highest |"]
    note = (
        ["", f"Beside peers: as `make bench-peers` found on {peers['date']}, round by round."] if peers["date"] else []
    )
    return [*head, "|---|---|---|---|---|---|---:|---:|", *rows, *note]


def _promise(figure: Figure, store: str) -> str:
    limits = [
        f"{limit.told(figure.unit)} | {'met' if limit.holds(figure.median) else '**not met**'}" if limit else " | "
        for limit in (figure.must, figure.aim)
    ]
    return f"| {figure.name} | {store} | {' | '.join(limits)} | {_measured(figure)} |"


def _measured(figure: Figure) -> str:
    spread = f"{figure.told(min(figure.rounds))} – {figure.told(max(figure.rounds))}" if len(figure.rounds) > 1 else ""
    return f"{figure.told(figure.median)} {figure.unit} | {spread}"


def _by_batch(found: Mapping[str, Any]) -> list[str]:
    rows: dict[tuple[str, str], dict[int, Figure]] = {}
    for store, figure in _figures(found):
        if figure.batch:
            rows.setdefault((store, figure.name), {})[figure.batch] = figure
    sizes: Sequence[int] = sorted({batch for figures in rows.values() for batch in figures})
    if not sizes:
        return []
    head = " | ".join(f"{size} to a call" for size in sizes)
    lines = [f"| Of a job | store | | {head} |", f"|---|---|---|{'---:|' * len(sizes)}"]
    for (store, name), figures in rows.items():
        unit = next(iter(figures.values())).unit
        cells = [_cell(figures[size]) if size in figures else "" for size in sizes]
        lines.append(f"| {name} | {store} | {unit} | {' | '.join(cells)} |")
    return lines


def _rest(found: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {figure.name} | {store} | {_measured(figure)} |"
        for store, figure in _figures(found)
        if not figure.is_promised and not figure.batch
    ]
    return ["| Further figures | store | measured | lowest – highest |", "|---|---|---:|---:|", *rows] if rows else []


def _counted(found: Mapping[str, Any]) -> list[str]:
    lines = [f"- {each['scenario']}, {each['store']}: {_in_words(each['counted'])}" for each in found["scenarios"]]
    lines += [f"- {store}: not measured, {reason}" for store, reason in found["not_measured"].items()]
    lines += [f"- {which}: **FAILED**: {' '.join(reason.split())}" for which, reason in found["failed"].items()]
    return ["Jobs as the servers count them, which is what was done:", "", *lines]


def _in_words(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counted.items())


def _cell(figure: Figure) -> str:
    return f"{figure.told(figure.median)} ({figure.told(min(figure.rounds))} – {figure.told(max(figure.rounds))})"


def _verdict_in_words(figure: Figure) -> str:
    told = [
        f"{name} {limit.told(figure.unit)}: {'met' if limit.holds(figure.median) else 'NOT met'}"
        for name, limit in (("must", figure.must), ("aim", figure.aim))
        if limit is not None
    ]
    return f" ({'; '.join(told)})" if told else ""
