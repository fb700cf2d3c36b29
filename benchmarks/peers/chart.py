"""The figures as bars, an SVG that is readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.peers.contestants import MEANINGS
from benchmarks.peers.report import ranked

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


def chart(told: Mapping[str, Any]) -> str:
    """Bars of the medians with a whisker from the lowest to the highest round, grouped by what an OK means."""
    most = max((spread["highest"] for spread in told["spread"].values()), default=1)
    scale = (WIDTH - LABELS - FIGURES) / most
    parts: list[str] = []
    top = 0
    for meaning in MEANINGS:
        names = ranked(told, meaning)
        if not names:
            continue
        top += HEADING
        parts.append(f'<text class="heading" x="0" y="{top - 10}">OK means: {meaning}</text>')
        for name in names:
            parts += _row(name, told["lives_per_second"][name], told["spread"][name], scale, top)
            top += ROW
    height = top + 10
    title = "Whole lives of jobs per second: median, lowest and highest round"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
    return "\n".join([head, f"<title>{title}</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _row(name: str, rate: int, spread: Mapping[str, Any], scale: float, top: int) -> list[str]:
    kind = "ours" if name.startswith("jobwire") else "peer"
    middle = top + BAR / 2
    low, high = (LABELS + spread[end] * scale for end in ("lowest", "highest"))
    return [
        f'<text x="{LABELS - 8}" y="{middle + 4}" text-anchor="end">{name}</text>',
        f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{max(rate * scale, 1):.1f}" height="{BAR}" rx="2"/>',
        f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6"/>',
        f'<text class="figure" x="{high + 8:.1f}" y="{middle + 4}">{rate:,}</text>',
    ]
