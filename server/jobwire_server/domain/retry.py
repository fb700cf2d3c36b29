"""When a job may run again."""

from __future__ import annotations

from typing import Final

from jobwire_server.domain.job import MINUTE, SECOND, RetryPolicy


def backoff(policy: RetryPolicy, retry: int, random: float) -> int:
    """The delay before the given retry (1 for the first), in microseconds: exponential, spread, never over `max_delay`.

    `random` is uniform in [0, 1) and chooses the place within ± jitter; the cap holds after the spread too.
    """
    try:
        grown = policy.initial_delay * policy.multiplier ** (retry - 1)
    except OverflowError:
        grown = policy.max_delay if policy.initial_delay else 0
    spread = 1.0 + policy.jitter * (2.0 * random - 1.0)
    return int(min(min(grown, policy.max_delay) * spread, policy.max_delay))


FREE_RETURNS: Final = 3
"""Returned deliveries in a row that cost a job no waiting."""
MAX_RETURNS: Final = 20
"""At this many returned deliveries in a row a job becomes a dead letter."""


def return_delay(returns: int) -> int:
    """How long a job waits after so many returned deliveries in a row: 0 at first, then 1 s, doubling up to 5 min."""
    if returns <= FREE_RETURNS:
        return 0
    return min(SECOND << (returns - FREE_RETURNS - 1), 5 * MINUTE)
