"""What the log says while a server cannot be reached."""

from __future__ import annotations

import logging
import time
from typing import Final

from jobwire_client.errors import JobwireError, ServerDraining

LONG_WAIT: Final = 1.0
"""Seconds. A shorter wait before the next try is said only when the cause is new."""


class Outage:
    """From the first failure to the next success, in few lines: each new cause, and then what is worth waiting for."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._cause = ""

    @property
    def is_under_way(self) -> bool:
        return self._since is not None

    def level(self, cause: str, wait: float, *, is_expected: bool = False) -> int:
        """Takes a failure down; how loud a line about it is to be."""
        if self._since is None:
            self._since = time.monotonic()
        is_new, self._cause = cause != self._cause, cause
        if is_expected:
            return logging.INFO
        return logging.WARNING if is_new or wait >= LONG_WAIT else logging.DEBUG

    def end(self) -> float | None:
        """Takes a success down; how many seconds the outage was, None without one."""
        since, self._since, self._cause = self._since, None, ""
        return None if since is None else time.monotonic() - since


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
