"""Hints on their way to whoever listens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from jobwire_server.store.base import Hints, WorkerNotice

MAX_NOTICES: Final = 10_000
"""Notices and workers kept for a listener that does not come; hints are a doorbell, so the oldest may go."""


class Listener(AsyncIterator[Hints]):
    """Hears every hint from its making on; one that comes late gets all it missed as one, so that costs no memory."""

    def __init__(self) -> None:
        self._pending: Hints | None = None
        self._rung = asyncio.Event()
        self._closed = False

    def ring(self, hints: Hints) -> None:
        self._pending = hints if self._pending is None else merged(self._pending, hints)
        self._rung.set()

    def close(self) -> None:
        """Ends the iteration, after what is still pending."""
        self._closed = True
        self._rung.set()

    async def __anext__(self) -> Hints:
        while self._pending is None:
            if self._closed:
                raise StopAsyncIteration
            self._rung.clear()
            await self._rung.wait()
        hints, self._pending = self._pending, None
        return hints


def merged(first: Hints, then: Hints) -> Hints:
    """Both as one: counts add up, notices follow each other."""
    return Hints(
        queued=dict(Counter(first.queued) + Counter(then.queued)),
        freed=_bounded(Counter(first.freed) + Counter(then.freed)),
        heard=tuple(dict.fromkeys(first.heard + then.heard))[-MAX_NOTICES:],
        directives=dict([*first.directives.items(), *then.directives.items()][-MAX_NOTICES:]),
        cancels=_joined(first.cancels, then.cancels),
        lost=_joined(first.lost, then.lost),
        expired_seen=first.expired_seen or then.expired_seen,
    )


def _joined(first: tuple[WorkerNotice, ...], then: tuple[WorkerNotice, ...]) -> tuple[WorkerNotice, ...]:
    return (first + then)[-MAX_NOTICES:]


def _bounded(counts: Counter[str]) -> dict[str, int]:
    return dict(counts) if len(counts) <= MAX_NOTICES else dict(counts.most_common(MAX_NOTICES))
