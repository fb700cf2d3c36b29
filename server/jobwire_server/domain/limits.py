"""How much is too much. One frozen value; the wire checks it, `GetServerInfo` tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from jobwire_server.domain.job import DAY, HOUR, MINUTE, SECOND

KIB: Final = 1024
MIB: Final = 1024 * KIB

JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""The grammar of queue and worker names; use `fullmatch`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, durations in microseconds. Every field can be set; every breach is answered with the limit."""

    payload: int = 256 * KIB
    """Payload, and result, each."""
    labels: int = 32
    label_size: int = 256
    """One label, key and value together."""
    error_text: int = 8 * KIB
    """Error message and details together; a longer message is cut, not refused: a failure must never get lost."""
    headers: int = 16 * KIB
    """Headers, query and route parameters together."""
    text: int = 256
    """Type, user id, request id, host, runtime, version, cancel reason, progress message: each."""
    batch: int = 1000
    """Items in one batch request."""
    max_in_flight: int = 10_000
    """Leases of one worker."""
    queues_per_stream: int = 64
    streams_per_principal: int = 10_000
    calls_in_flight: int = 10_000
    """Unary calls at a time, but for those that wait for a job, which count as streams; more are refused."""
    receive: int = 16 * MIB
    """One request, whole."""
    send: int = 3 * MIB
    """One answer or stream message; plain stubs refuse more than 4 MiB."""
    min_lease: int = SECOND
    max_lease: int = 12 * HOUR
    max_delivery_timeout: int = 5 * MINUTE
    max_wait: int = 5 * MINUTE
    """The longest that one call waits for the end of a job."""
    max_delay: int = 366 * DAY
    """The longest a retry may wait."""
    max_schedule: int = 36_525 * DAY
    """The furthest ahead a job may be scheduled: a century, which keeps scores exact in a double."""
    max_retention: int = 3660 * DAY
