"""Counters, gauges and histograms in the text format of Prometheus.

A number is a cell of memory, and a process has a row of cells. Processes that share a port share the memory as well, so
that whichever is asked sums all rows; one that takes the place of another goes on with its row. For that each of them
must register the same series in the same order: labels come from the contract and the code, never from a caller.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for what takes time: from a call of SQLite to a deadline that has passed."""
ITEMS: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
"""Bounds for the size of a batch."""

_ROW: Final = 8192
"""Cells of a process: 64 KiB, of which the system gives those that are used."""

Labels = Mapping[str, str]
NONE: Final[Labels] = {}
Timed = Callable[[str, float], None]
"""Told of a step by its name, and how many seconds it took."""


def unmeasured(_: str, __: float) -> None:
    """Nobody wants to know."""


class Cells:
    """Memory for so many processes. It is shared by those that fork after it was made."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._memory = memoryview(mmap.mmap(-1, processes * _ROW * 8)).cast("d")

    def row(self, process: int) -> memoryview[float]:
        return self._memory[process * _ROW : (process + 1) * _ROW]

    def total(self, at: int) -> float:
        """Over all processes."""
        return sum(self._memory[at::_ROW])


class Counter:
    """A number that only rises. 0.1 µs."""

    __slots__ = ("_at", "_row")

    def __init__(self, row: memoryview[float], at: int) -> None:
        self._row = row
        self._at = at

    def add(self, amount: float = 1) -> None:
        self._row[self._at] += amount


class Gauge(Counter):
    """A number that falls as well, as `add` is given less than 0; what processes say is added up."""

    __slots__ = ()


class Histogram:
    """How often something was how large. 0.3 µs."""

    __slots__ = ("_at", "_bounds", "_row")

    def __init__(self, row: memoryview[float], at: int, bounds: Sequence[float]) -> None:
        self._row = row
        self._at = at
        self._bounds = bounds

    def observe(self, value: float) -> None:
        """One that is equal to a bound is below it."""
        row = self._row
        row[self._at + bisect_left(self._bounds, value)] += 1
        row[self._at + len(self._bounds) + 1] += value


class _Family:
    def __init__(self, kind: str, about: str, bounds: Sequence[float], *, sparse: bool) -> None:
        self.kind = kind
        self.about = about
        self.bounds = bounds
        self.sparse = sparse
        self.series: dict[tuple[tuple[str, str], ...], int] = {}
        """Labels → first cell."""


class Registry:
    """The series of one process. Asking for a series twice gives the same one."""

    def __init__(self, cells: Cells | None = None, process: int = 0) -> None:
        self._cells = Cells() if cells is None else cells
        self._row = self._cells.row(process)
        self._families: dict[str, _Family] = {}
        self._taken = 0

    def counter(self, name: str, about: str, labels: Labels = NONE, *, sparse: bool = False) -> Counter:
        """`sparse`: a series is left out as long as it is 0, where most of many always are."""
        return Counter(self._row, self._place(name, "counter", about, (), labels, sparse=sparse))

    def gauge(self, name: str, about: str, labels: Labels = NONE) -> Gauge:
        at = self._place(name, "gauge", about, (), labels)
        self._row[at] = 0  # whoever had this row before has gone, and what it had with it
        return Gauge(self._row, at)

    def histogram(
        self, name: str, about: str, bounds: Sequence[float], labels: Labels = NONE, *, sparse: bool = False
    ) -> Histogram:
        return Histogram(self._row, self._place(name, "histogram", about, bounds, labels, sparse=sparse), bounds)

    def lines(self) -> Iterator[str]:
        """All of it, as text."""
        for name, family in self._families.items():
            yield from heading(name, family.kind, family.about)
            for labels, at in family.series.items():
                if family.bounds:
                    yield from self._histogram_lines(name, family, dict(labels), at)
                else:
                    value = self._cells.total(at)
                    if value or not family.sparse:
                        yield sample(name, dict(labels), value)

    def _histogram_lines(self, name: str, family: _Family, labels: Labels, at: int) -> Iterator[str]:
        counts = [self._cells.total(at + i) for i in range(len(family.bounds) + 1)]
        if family.sparse and not any(counts):
            return
        so_far = 0.0
        for bound, count in zip((*map(_text, family.bounds), "+Inf"), counts, strict=True):
            so_far += count
            yield sample(f"{name}_bucket", {**labels, "le": bound}, so_far)
        yield sample(f"{name}_sum", labels, self._cells.total(at + len(counts)))
        yield sample(f"{name}_count", labels, so_far)

    def _place(
        self, name: str, kind: str, about: str, bounds: Sequence[float], labels: Labels, *, sparse: bool = False
    ) -> int:
        family = self._families.setdefault(name, _Family(kind, about, bounds, sparse=sparse))
        key = tuple(labels.items())
        if key not in family.series:
            family.series[key] = self._taken
            self._taken += len(bounds) + 2 if bounds else 1
            if self._taken > _ROW:
                raise RuntimeError("more series than a process has cells")
        return family.series[key]


def heading(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {_text(value)}" if inside else f"{name} {_text(value)}"


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
