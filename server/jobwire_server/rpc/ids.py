"""Ids the server makes."""

from __future__ import annotations

import os
import re
import time

from jobwire_server.domain.noise import noise_bits


class JobIds:
    """UUIDv7 (RFC 9562) as text. Each sorts after the one before it, whatever the clock does, so that jobs made here
    come back in the order they were made. Ids of different processes differ in 62 random bits."""

    def __init__(self) -> None:
        self._last = 0

    def make(self) -> str:
        # 48 bits of milliseconds, 12 of their fraction (the RFC's method 3); counted on when the clock stands still.
        self._last = stamp = max(time.time_ns() * 4096 // 1_000_000, self._last + 1)
        text = f"{stamp:015x}{0x8000_0000_0000_0000 | noise_bits(62):016x}"
        return f"{text[:8]}-{text[8:12]}-7{text[12:15]}-{text[15:19]}-{text[19:]}"


def worker_id(host: str, pid: int) -> str:
    """A name for a worker that gave none: fits the grammar of names and is not met again."""
    random = os.urandom(5).hex()
    # The host is the caller's text; whatever the grammar does not know becomes a dash.
    host = re.sub(r"[^A-Za-z0-9._-]", "-", host).lstrip("._-")[:32]
    return "-".join((host, str(pid), random)) if host and pid else f"{host or 'anonymous'}-{random}"
