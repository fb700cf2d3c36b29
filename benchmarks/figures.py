"""What a run has found: a figure of each round, their median and spread, and what had been promised."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

UNITS: Final = {"/s": 0, "ms": 2, "µs": 1, "B": 0, "KiB": 1, "MiB": 1, "%": 1, "×": 2, "calls": 2}
"""Each with its decimals."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure must not fall below, or not exceed."""

    value: float
    is_floor: bool

    def holds(self, figure: float) -> bool:
        return figure >= self.value if self.is_floor else figure <= self.value

    def told(self, unit: str) -> str:
        return f"{'≥' if self.is_floor else '≤'} {self.value:g} {unit}"


def at_least(value: float) -> Limit:
    return Limit(value, is_floor=True)


def at_most(value: float) -> Limit:
    return Limit(value, is_floor=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a scenario finds out, once in each round."""

    name: str
    unit: str
    rounds: Sequence[float]
    must: Limit | None = None
    aim: Limit | None = None
    batch: int = 0
    """Jobs in one call, where it was measured with several sizes."""

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def is_promised(self) -> bool:
        return self.must is not None or self.aim is not None

    def told(self, value: float) -> str:
        return f"{value:,.{UNITS[self.unit]}f}"

    def as_json(self) -> dict[str, Any]:
        limits = {"must": self.must, "aim": self.aim}
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(self.median, 3),
            "lowest": round(min(self.rounds), 3),
            "highest": round(max(self.rounds), 3),
            "rounds": [round(each, 3) for each in self.rounds],
            **({"batch": self.batch} if self.batch else {}),
            **{
                name: {"at_least" if limit.is_floor else "at_most": limit.value, "met": limit.holds(self.median)}
                for name, limit in limits.items()
                if limit is not None
            },
        }


def from_json(told: Mapping[str, Any]) -> Figure:
    """The figure that `as_json` has told."""

    def limit(name: str) -> Limit | None:
        if name not in told:
            return None
        return at_least(told[name]["at_least"]) if "at_least" in told[name] else at_most(told[name]["at_most"])

    return Figure(told["name"], told["unit"], told["rounds"], limit("must"), limit("aim"), told.get("batch", 0))


def percentile(times: Sequence[float], percent: float) -> float:
    """Of these, the least that so many percent do not exceed."""
    return sorted(times)[max(math.ceil(len(times) * percent / 100) - 1, 0)]
