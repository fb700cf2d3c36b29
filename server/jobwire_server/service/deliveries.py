"""Jobs that were handed to a worker and not acknowledged yet, and their way back when the worker has gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.service.claim_events import Assignment
from jobwire_server.service.jobs import DECISIONS
from jobwire_server.service.words import Bring, no_words
from jobwire_server.store.base import Store, StoreFull, StoreUnavailable

log = logging.getLogger("jobwire.claims")

Delivery = tuple[str, bytes]
"""Job id, digest of the token it was given."""


class Deliveries:
    """All deliveries of this server that it has not seen acknowledged.

    Another server may have seen that: the store decides, a hand-back takes nothing from a worker that has beaten.
    """

    def __init__(self, store: Store, *, bring: Bring = no_words) -> None:
        self._store = store
        self._bring = bring
        self._owners: dict[bytes, Outstanding] = {}
        self._hand_backs: set[asyncio.Task[None]] = set()

    def of_stream(self, on_acknowledged: Callable[[], None]) -> Outstanding:
        """The part that one stream answers for; `on_acknowledged` is called after each change of it from outside."""
        return Outstanding(self._owners, on_acknowledged)

    def acknowledged(self, digests: Iterable[bytes]) -> None:
        """Those have arrived: nobody needs to hand them back any more."""
        for digest in digests:
            owner = self._owners.pop(digest, None)
            if owner is not None:
                owner.acknowledged(digest)

    def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """Takes deliveries back, in the background, unless their worker has acknowledged them."""
        task = asyncio.create_task(self._hand_back(deliveries))
        self._hand_backs.add(task)
        task.add_done_callback(self._hand_backs.discard)

    async def finish(self) -> None:
        """Returns when no hand-back is under way."""
        while self._hand_backs:
            await asyncio.wait(self._hand_backs)

    async def _hand_back(self, deliveries: Sequence[Delivery]) -> None:
        pending = list(deliveries)
        try:
            for _ in range(DECISIONS):
                if not pending:
                    return
                found = await self._store.get([job_id for job_id, _ in pending])
                given = [
                    (job, token)
                    for (_, token), job in zip(pending, found.jobs, strict=True)
                    if job is not None and job.state is JobState.IN_PROGRESS and job.token == token
                ]
                moves = [
                    self._bring(job, policy.hand_back(job, token, now=found.now))
                    for job, token in given
                    if not job.acknowledged
                ]
                moved = await self._store.move(moves) if moves else []
                stale = {
                    move.job_id for move, result in zip(moves, moved, strict=True) if result.outcome is Outcome.STALE
                }
                pending = [(job_id, token) for job_id, token in pending if job_id in stale]
        except (StoreUnavailable, StoreFull) as error:
            log.warning("%d deliveries go back only when their deadline passes: %s", len(pending), error)


class Outstanding:
    """The deliveries of one stream that wait for their acknowledgment."""

    def __init__(self, owners: dict[bytes, Outstanding], on_acknowledged: Callable[[], None]) -> None:
        self._owners = owners
        self._on_acknowledged = on_acknowledged
        self._deliveries: dict[bytes, tuple[str, int]] = {}
        """Digest → job id and deadline, oldest first."""

    def __len__(self) -> int:
        return len(self._deliveries)

    def add(self, assignments: Sequence[Assignment], *, now: int, deadline: int) -> None:
        """Remembers what is handed out now, and forgets what has expired: the reaper takes that back."""
        for digest, (_, expires) in list(self._deliveries.items()):
            if expires > now:
                break
            del self._deliveries[digest]
            self._owners.pop(digest, None)
        for assignment in assignments:
            self._deliveries[assignment.digest] = (assignment.job.id, deadline)
            self._owners[assignment.digest] = self

    def acknowledged(self, digest: bytes) -> None:
        self._deliveries.pop(digest, None)
        self._on_acknowledged()

    def take_all(self) -> list[Delivery]:
        """All of them; from now on nobody here answers for them."""
        taken = [(job_id, digest) for digest, (job_id, _) in self._deliveries.items()]
        for _, digest in taken:
            self._owners.pop(digest, None)
        self._deliveries.clear()
        return taken
