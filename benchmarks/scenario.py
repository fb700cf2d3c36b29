"""The shape of a scenario: what it promises, how much it does, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.figures import Figure

ENGINES: Final = ("redis", "valkey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything is done."""

    name: str
    runs: int
    """Rounds, of which the median counts."""
    batches: Sequence[int]
    """Jobs in one call."""
    jobs: int
    """Of one round with large batches."""
    calls: int
    """Single calls of one round."""
    pick_ups: int
    """Jobs of one round that an idle worker is given."""
    backlogs: tuple[int, int]
    """Jobs that wait while claims are timed: few, and many."""
    claims: int
    """Of one round, at each backlog."""
    streams: int
    """Workers that wait at the same time."""
    seconds: int
    """For which idle streams are watched; one job each."""

    def jobs_by(self, batch: int) -> int:
        """Of one round in batches of that size: small ones are slow, and a rate does not need as many."""
        share = 20 if batch == 1 else 4 if batch <= 10 else 1
        return max(self.jobs // share, batch)


FULL: Final = Size(
    name="full",
    runs=5,
    batches=(1, 10, 100, 500),
    jobs=20_000,
    calls=3_000,
    pick_ups=200,
    backlogs=(1_000, 1_000_000),
    claims=300,
    streams=1_000,
    seconds=10,
)
QUICK: Final = Size(
    name="quick",
    runs=3,
    batches=(1, 10, 100, 500),
    jobs=5_000,
    calls=600,
    pick_ups=50,
    backlogs=(1_000, 20_000),
    claims=100,
    streams=200,
    seconds=3,
)
TINY: Final = Size(
    name="tiny",
    runs=1,
    batches=(1, 10),
    jobs=40,
    calls=64,
    pick_ups=3,
    backlogs=(10, 100),
    claims=5,
    streams=10,
    seconds=1,
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario is given."""

    store: str
    size: Size
    tell: Callable[[str], None]
    """For people who wait: what is under way."""

    @property
    def has_engine(self) -> bool:
        """The store is a process of its own, which can be asked what it does."""
        return self.store in ENGINES

    def rounds(self, what: str = "") -> Iterator[int]:
        for number in range(self.size.runs):
            self.tell(f"{what}{', ' if what else ''}round {number + 1} of {self.size.runs}")
            yield number


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario answers."""

    counted: Mapping[str, int]
    """Jobs, as the servers count them; it has been compared with what was done."""
    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is measured on one store after the other."""

    name: str
    what: str
    promises: str
    """What must hold, and what is aimed at."""
    measure: Callable[[Setup], Coroutine[Any, Any, Outcome]]
    """Raises `lives.Miscounted`."""
    weight: int
    """About the seconds it takes with one store at full size on two cores: for the bar."""
    needs_engine: bool = False
    """It is about what only Redis and Valkey have."""

    def fits(self, store: str) -> bool:
        return not self.needs_engine or store in ENGINES
