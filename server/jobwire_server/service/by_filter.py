"""What callers do to all jobs that match a filter: a bounded stretch of them a call."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import ENDED, WAITING, Job, JobState
from jobwire_server.domain.move import Deletion, Move
from jobwire_server.service.words import Bring, no_words
from jobwire_server.store.base import SCAN, Store
from jobwire_server.telemetry.logs import fields

log = logging.getLogger("jobwire.jobs")

BITE: Final = 100
"""Jobs changed by one store call, so that claims and settlements get their turn in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs are meant, and how far one call goes."""

    wanted: JobFilter
    max_jobs: int
    validate_only: bool = False
    after: Position | None = None
    """Where the call before came to."""
    began: int | None = None
    """When the first call of the row looked; None = this is the first."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What one call has done, or, with `validate_only`, would have done."""

    count: int
    end: Position | None
    """Behind it nothing has been looked at; None = all has."""
    began: int


D = TypeVar("D", Move, Deletion)


@dataclass(frozen=True, slots=True)
class _Verb(Generic[D]):
    """One of the verbs: whom it can act on, what it decides of a job now, in a row that began then, and who does it."""

    name: str
    states: frozenset[JobState]
    decide: Callable[[Job, int, int], D | None]
    apply: Callable[[Sequence[D]], Awaitable[list[Outcome]]]


class JobsByFilter:
    """Cancels, replays and deletes. Of a job that changed meanwhile it is decided once more; then it is left alone, for
    it has shown that others take care of it."""

    def __init__(self, store: Store, *, bring: Bring = no_words) -> None:
        self._store = store
        self._bring = bring

    async def cancel(self, selection: Selection, *, reason: str, grace: int) -> Changed:
        """Cancels those that wait and asks the workers of those that run, where nobody has asked before."""

        def decide(job: Job, now: int, _: int) -> Move | None:
            if job.cancel_requested:
                return None
            decided = policy.cancel(job, reason=reason, grace=grace, etag=None, now=now)
            return None if decided is None else self._bring(job, decided)

        return await self._change(selection, _Verb("cancel", WAITING | {JobState.IN_PROGRESS}, decide, self._move))

    async def replay(self, selection: Selection) -> Changed:
        """Lets those that had ended when the row of calls began run again."""

        def decide(job: Job, _: int, began: int) -> Move | None:
            # What was replayed and has failed anew stands behind all that is still to come: without this a queue whose
            # jobs cannot succeed would be replayed for ever.
            if job.finish_time is not None and job.finish_time > began:
                return None
            return policy.replay(job, etag=None)

        return await self._change(selection, _Verb("replay", ENDED, decide, self._move))

    async def delete(self, selection: Selection) -> Changed:
        """Removes those that no worker has."""
        return await self._change(
            selection,
            _Verb(
                "delete",
                WAITING | ENDED,
                lambda job, *_: policy.delete(job, force=False, etag=None),
                self._store.delete,
            ),
        )

    async def _change(self, selection: Selection, verb: _Verb[D]) -> Changed:
        wanted, after, began = selection.wanted.within(verb.states), selection.after, selection.began
        changed = looked = 0
        while wanted is not None:
            bite = min(BITE, selection.max_jobs - changed)
            found = await self._store.find(wanted, after=after, limit=bite)
            began = found.now if began is None else began
            changed += await self._bite(found.jobs, found.now, began, wanted, verb, dry=selection.validate_only)
            looked += len(found.jobs)
            after = found.end
            if after is None or changed == selection.max_jobs or looked >= SCAN or len(found.jobs) < bite:
                if not selection.validate_only:
                    log.info("%s by filter: %d jobs", verb.name, changed, extra=fields(verb=verb.name, jobs=changed))
                return Changed(changed, after, began)
        return Changed(0, None, began or 0)

    async def _bite(
        self, jobs: Sequence[Job | None], now: int, began: int, wanted: JobFilter, verb: _Verb[D], *, dry: bool
    ) -> int:
        """Decides and applies; answers how many were, or would be, changed."""
        changed = 0
        for _ in range(2):
            decided = [
                decision
                for job in jobs
                if job is not None and wanted.matches(job) and (decision := verb.decide(job, now, began)) is not None
            ]
            if dry or not decided:
                return changed + len(decided)
            outcomes = await verb.apply(decided)
            changed += outcomes.count(Outcome.OK)
            stale = [each.job_id for each, outcome in zip(decided, outcomes, strict=True) if outcome is Outcome.STALE]
            if not stale:
                return changed
            snapshot = await self._store.get(stale)
            jobs, now = snapshot.jobs, snapshot.now
        return changed

    async def _move(self, moves: Sequence[Move]) -> list[Outcome]:
        return [moved.outcome for moved in await self._store.move(moves)]
