"""Rates as bars, an SVG that is readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 760
LABELS: Final = 170  # what the names take on the left
FIGURES: Final = 70  # and the figures on the right
BAR: Final = 14
ROW: Final = 24
HEADING: Final = 34

STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .heading { font-weight: 600 }
  .figure { font-variant-numeric: tabular-nums }
  .ours { fill: #0969da }
  .peer { fill: #8c959f }
  .spread { stroke: #24292f; fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .ours { fill: #58a6ff }
    .peer { fill: #6e7681 }
    .spread { stroke: #e6edf3 }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A median, with a whisker from the lowest to the highest round."""

    name: str
    rate: float
    lowest: float
    highest: float
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that may be compared."""

    heading: str
    bars: Sequence[Bar]


def draw(title: str, groups: Sequence[Group]) -> str:
    """The groups one below the other, all to one scale; a group without bars is left out."""
    most = max((bar.highest for group in groups for bar in group.bars), default=1)
    scale = (WIDTH - LABELS - FIGURES) / most
    parts: list[str] = []
    top = 0
    for group in groups:
        if not group.bars:
            continue
        top += HEADING
        parts.append(f'<text class="heading" x="0" y="{top - 10}">{group.heading}</text>')
        for bar in group.bars:
            parts += _row(bar, scale, top)
            top += ROW
    height = top + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
    return "\n".join([head, f"<title>{title}</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _row(bar: Bar, scale: float, top: int) -> list[str]:
    kind = "ours" if bar.is_ours else "peer"
    middle = top + BAR / 2
    low, high = LABELS + bar.lowest * scale, LABELS + bar.highest * scale
    return [
        f'<text x="{LABELS - 8}" y="{middle + 4}" text-anchor="end">{bar.name}</text>',
        f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{max(bar.rate * scale, 1):.1f}" height="{BAR}" rx="2"/>',
        f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6"/>',
        f'<text class="figure" x="{high + 8:.1f}" y="{middle + 4}">{bar.rate:,.0f}</text>',
    ]
