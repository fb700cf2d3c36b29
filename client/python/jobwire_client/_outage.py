"""What the log says while a server cannot be reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from jobwire_client.errors import JobwireError, ServerDraining

REMINDER: Final = 60.0
"""Seconds for which the same cause is not said again."""


class Outage:
    """From the first failure to the next success, in few lines: each new cause, and then one a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._cause = ""
        self._said = 0.0

    @property
    def is_under_way(self) -> bool:
        return self._since is not None

    def level(self, cause: str, *, is_expected: bool = False) -> int:
        """Takes a failure down; how loud a line about it is to be."""
        now = self._clock()
        if self._since is None:
            self._since = now
        is_new, self._cause = cause != self._cause, cause
        if not is_new and now - self._said < REMINDER:
            return logging.DEBUG
        self._said = now
        return logging.INFO if is_expected else logging.WARNING

    def end(self) -> float | None:
        """Takes a success down; how many seconds the outage was, None without one."""
        since, self._since, self._cause = self._since, None, ""
        return None if since is None else self._clock() - since


def brief(error: JobwireError) -> str:
    """Reason and cause. What gRPC says of a connection names addresses and layers, and runs to 200 characters."""
    if error.reason != error.code.name:
        return str(error)
    if "Socket closed" in error.message or "Connection reset" in error.message:
        return f"{error.reason}: connection closed"
    cause = error.message.rpartition(": ")[2].strip()
    if cause == error.reason:
        return cause
    return f"{error.reason}: {cause[:1].lower()}{cause[1:100]}"


def is_expected(error: JobwireError | None) -> bool:
    """A deploy, announced by the server that goes."""
    return isinstance(error, ServerDraining)
