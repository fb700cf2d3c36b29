"""The figures as bars, grouped by what an OK means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.bars import Bar, Group, draw
from benchmarks.peers.contestants import MEANINGS
from benchmarks.peers.report import ranked


def chart(told: Mapping[str, Any]) -> str:
    """An SVG."""

    def bar(name: str) -> Bar:
        spread = told["spread"][name]
        rate = told["lives_per_second"][name]
        return Bar(name, rate, spread["lowest"], spread["highest"], is_ours=name.startswith("jobwire"))

    groups = [Group(f"OK means: {meaning}", [bar(name) for name in ranked(told, meaning)]) for meaning in MEANINGS]
    return draw("Whole lives of jobs per second: median, lowest and highest round", groups)
