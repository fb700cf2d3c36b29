"""What a command that takes its time shows meanwhile."""

from __future__ import annotations

import sys
import time
from typing import Final

_BETWEEN: Final = 0.2
"""Seconds between two changes of the progress line."""


class ProgressLine:
    """How far it has come, in one line on a terminal; nothing anywhere else."""

    def __init__(self, done: str = "read", what: str = "job") -> None:
        """`what`: one of those that are counted."""
        self._is_seen = sys.stderr.isatty()
        self._next = time.monotonic() + _BETWEEN
        self._what = what
        self._done = done

    def __call__(self, number: int) -> None:
        if self._is_seen and (now := time.monotonic()) >= self._next:
            self._next = now + _BETWEEN
            self._write(f"{number_of(number, self._what)} {self._done} …")

    def clear(self) -> None:
        if self._is_seen:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def number_of(number: int, what: str) -> str:
    """`1 job`, `1,000 jobs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """What is damaged may be anything, and some of it would be an order to the terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
