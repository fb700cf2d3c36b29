"""What a command that takes its time shows meanwhile."""

from __future__ import annotations

import sys
import time
from typing import Final

_BETWEEN: Final = 0.2
"""Seconds between two changes of the progress line."""


class ProgressLine:
    """How far it has come, in one line on a terminal; nothing anywhere else."""

    def __init__(self, done: str = "read", what: str = "jobs") -> None:
        self._is_seen = sys.stderr.isatty()
        self._next = time.monotonic() + _BETWEEN
        self._words = f"{what} {done}"

    def __call__(self, number: int) -> None:
        if self._is_seen and (now := time.monotonic()) >= self._next:
            self._next = now + _BETWEEN
            self._write(f"{number:,} {self._words} …")

    def clear(self) -> None:
        if self._is_seen:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def printable(text: str) -> str:
    """What is damaged may be anything, and some of it would be an order to the terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
