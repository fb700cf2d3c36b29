"""Reads a figure that is drawn with box characters: which box each labelled arrow leads from and to.

A box is drawn with ┌ ┐ └ ┘ and holds its name on a line of its own, or in its upper edge (`┌─ name ─┐`) when it holds
other boxes. An arrow is a line of ─ │ and corners, ends in ▶ ◀ ▲ ▼ next to the box it leads to, and begins next to
another. Its label stands in the line. Where a line passes an edge or another line, both are drawn as ┼.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADS = {"▶": (1, 0), "◀": (-1, 0), "▼": (0, 1), "▲": (0, -1)}
CORNERS = {"┌": {(1, 0), (0, 1)}, "┐": {(-1, 0), (0, 1)}, "└": {(1, 0), (0, -1)}, "┘": {(-1, 0), (0, -1)}}
LABEL = re.compile(r"[a-z_, ]")

Direction = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Box:
    """One box, by its corners."""

    name: str
    left: int
    top: int
    right: int
    bottom: int

    def has_on_its_edge(self, x: int, y: int) -> bool:
        inside = self.left <= x <= self.right and self.top <= y <= self.bottom
        return inside and (x in (self.left, self.right) or y in (self.top, self.bottom))

    def holds(self, other: Box) -> bool:
        return self.left < other.left and other.right < self.right and self.top < other.top < self.bottom


@dataclass(frozen=True, slots=True)
class Arrow:
    """One arrow: from box to box, under the words of its label."""

    source: str
    words: tuple[str, ...]
    target: str


class Figure:
    """A figure, read once."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.boxes = list(self._find_boxes())
        self.used: set[tuple[int, int]] = set()
        self.arrows = [
            self._follow(x, y) for y, line in enumerate(self._lines) for x, char in enumerate(line) if char in HEADS
        ]

    def members(self, name: str) -> list[str]:
        """The names of the boxes in that box, or its own name when it holds none."""
        [outer] = [box for box in self.boxes if box.name == name]
        return [box.name for box in self.boxes if outer.holds(box)] or [name]

    def strays(self) -> list[str]:
        """Words of the figure that belong to no box and no arrow: a line that is broken loses its label."""
        names = (
            " ".join(box.name for box in self.boxes)
            + " "
            + " ".join(word for arrow in self.arrows for word in arrow.words)
        )
        return [word for word in re.findall(r"\w+", "\n".join(self._lines)) if word not in names.split()]

    def _at(self, x: int, y: int) -> str:
        inside = 0 <= y < len(self._lines) and 0 <= x < len(self._lines[y])
        return self._lines[y][x] if inside else " "

    def _find_boxes(self) -> list[Box]:
        boxes = []
        for top, line in enumerate(self._lines):
            # An arrow's corners are no box: its lines do not close.
            for edge in re.finditer(r"┌─(?: (\w+) )?[─┼]*┐", line):
                left, right = edge.start(), edge.end() - 1
                bottom = top + 1
                while self._at(left, bottom) in "│┼" and self._at(right, bottom) in "│┼":
                    bottom += 1
                if self._at(left, bottom) != "└" or self._at(right, bottom) != "┘":
                    continue
                inner = [self._lines[y][left + 1 : right].strip() for y in range(top + 1, bottom)]
                name = edge[1] or next(text for text in inner if re.fullmatch(r"\w+", text))
                boxes.append(Box(name, left, top, right, bottom))
        return boxes

    def _edge(self, x: int, y: int) -> str | None:
        """The box whose edge is drawn here; a crossing is no edge."""
        if self._at(x, y) == "┼":
            return None
        found = [box.name for box in self.boxes if box.has_on_its_edge(x, y)]
        return found[0] if found else None

    def _follow(self, x: int, y: int) -> Arrow:
        """From the head of an arrow back to the box it begins at."""
        dx, dy = HEADS[self._lines[y][x]]
        target = self._edge(x + dx, y + dy)
        assert target, f"the arrow at line {y + 1}, column {x + 1} points at no box"
        step: Direction = (-dx, -dy)
        labels = []
        while True:
            x, y = x + step[0], y + step[1]
            char = self._at(x, y)
            source = self._edge(x, y)
            if source:
                break
            if char in CORNERS:
                came = (-step[0], -step[1])
                assert came in CORNERS[char], f"the line breaks at line {y + 1}, column {x + 1}"
                [step] = CORNERS[char] - {came}
            elif LABEL.fullmatch(char):
                label, x = self._label(x, y, step)
                labels.append(label)
            else:
                straight = "─┼" if step[1] == 0 else "│┼"
                assert char in straight, f"the line breaks at line {y + 1}, column {x + 1}: {char!r}"
        assert len(labels) == 1, f"an arrow from {source} to {target} has the labels {labels}"
        return Arrow(source, tuple(re.findall(r"\w+", labels[0])), target)

    def _label(self, x: int, y: int, step: Direction) -> tuple[str, int]:
        """The label in the line at this place, and the last column of it in the direction of the step."""
        start = end = x
        allowed = LABEL if step[1] == 0 else re.compile(r"[a-z_,]")  # beside an upright line stands blank space
        while start > 0 and allowed.fullmatch(self._at(start - 1, y)):
            start -= 1
        while end + 1 < len(self._lines[y]) and allowed.fullmatch(self._at(end + 1, y)):
            end += 1
        label = self._lines[y][start : end + 1].strip()
        assert label, f"the line breaks at line {y + 1}, column {x + 1}"
        return label, x if step[0] == 0 else (end if step[0] > 0 else start)
