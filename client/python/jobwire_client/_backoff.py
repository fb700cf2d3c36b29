"""How long to wait before trying again."""

from __future__ import annotations

import random
from typing import Final

FIRST: Final = 0.1
LONGEST: Final = 2.0
"""Seconds. After an outage everything runs again within 5 s, and a channel takes a second of its own to reconnect."""


class Backoff:
    """Full jitter: a random wait below a bound that doubles from 0.1 s to `longest`, so that a crowd spreads out."""

    def __init__(self, *, longest: float = LONGEST) -> None:
        self._bound = FIRST
        self._longest = longest

    def next(self, *, at_least: float | None = None) -> float:
        """Seconds to wait now. `at_least` is what the server asked for; the jitter comes on top of it."""
        wait = random.uniform(0, self._bound)
        self._bound = min(self._bound * 2, self._longest)
        return wait + (at_least or 0)

    def reset(self) -> None:
        self._bound = FIRST
