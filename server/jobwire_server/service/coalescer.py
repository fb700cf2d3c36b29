"""Turns calls that come at the same time into one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.store.base import StoreFull, StoreUnavailable
from jobwire_server.telemetry.metrics import SECONDS, Histogram, Registry

T = TypeVar("T")
R = TypeVar("R")

RETRY_AFTER: Final = 100_000
"""Microseconds after which a call that found too many before it may find room."""

PATIENCE: Final = 25
"""Passes of the event loop that bring no further call before a batch goes: in so many, a call that has reached the
process reaches us. More of them gained nothing."""

_PATIENCE_FOR_EACH: Final = 8
"""Of those, for each call by which the last batch was more than one: two that met are enough to wait for a third."""

_LONGEST: Final = 8 * PATIENCE
"""Passes that a batch waits at most, however many calls go on to come."""


@dataclass(slots=True)
class _Call(Generic[T, R]):
    items: Sequence[T]
    future: asyncio.Future[Sequence[R]]
    arrived: float


def waits(metrics: Registry, of: str) -> Histogram:
    """For the `waits` of coalescers of one kind."""
    about = "How long the call that waited longest for its batch did so."
    return metrics.histogram("jobwire_coalescer_wait_seconds", about, SECONDS, {"of": of})


class Coalescer(Generic[T, R]):
    """Runs one batch at a time; what arrives meanwhile gathers for the next. No timer, so a lone call waits for nobody.

    Where calls do come together, a batch also waits for those that are on their way through the event loop: it goes
    when a number of passes brought none. The store answers within the time that one call takes gRPC, so that without it
    64 callers made batches of two (measured: 1,700 → 3,000 single creates a second on Redis, 1,900 → 2,900 on SQLite).

    `run` takes items in order of arrival and answers one result for each, or raises and has done nothing. A batch holds
    `batch` items, or one call that has more. Calls of more than half a batch go alone and at once: they are a batch
    already, and gain nothing by waiting. While `bound` items wait, further calls are refused with TOO_MANY_CALLS.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        batch: int,
        waits: Histogram | None = None,
        bound: int = 100_000,
    ) -> None:
        self._run = run
        self._waits = waits
        self._batch = batch
        self._bound = bound
        self._waiting: deque[_Call[T, R]] = deque()
        self._gathered = 0
        self._together = 1
        """Calls in the last batch."""
        self._task: asyncio.Task[None] | None = None

    async def call(self, items: Sequence[T]) -> Sequence[R]:
        """The results of these items. A caller that stops waiting does not stop the batch."""
        if 2 * len(items) > self._batch:
            return await self._run(items)
        return await self.submit(items)

    def submit(self, items: Sequence[T]) -> asyncio.Future[Sequence[R]]:
        """The future of their results. Await it through `asyncio.shield` where the results must not get lost."""
        if self._gathered + len(items) > self._bound:
            raise JobwireError(
                Reason.TOO_MANY_CALLS,
                f"{self._gathered} changes wait for the store already",
                retry_after=RETRY_AFTER,
                metadata={"limit": str(self._bound)},
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[R]] = loop.create_future()
        self._waiting.append(_Call(items, future, loop.time()))
        self._gathered += len(items)
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return future

    def waiting(self) -> Iterator[T]:
        """The items whose batch has not begun."""
        return (item for call in self._waiting for item in call.items)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._let_others_join()
                await self._run_batch(self._next_batch())
        finally:
            self._task = None

    async def _let_others_join(self) -> None:
        patience = min(PATIENCE, _PATIENCE_FOR_EACH * (self._together - 1))
        passes = without = 0
        while without < patience and passes < _LONGEST and self._gathered < self._batch:
            before = self._gathered
            await asyncio.sleep(0)
            passes += 1
            without = without + 1 if self._gathered == before else 0

    def _next_batch(self) -> list[_Call[T, R]]:
        calls = [self._waiting.popleft()]
        size = len(calls[0].items)
        while self._waiting and size + len(self._waiting[0].items) <= self._batch:
            calls.append(self._waiting.popleft())
            size += len(calls[-1].items)
        self._gathered -= size
        self._together = len(calls)
        if self._waits is not None:
            self._waits.observe(asyncio.get_running_loop().time() - calls[0].arrived)
        return calls

    async def _run_batch(self, calls: Sequence[_Call[T, R]]) -> None:
        try:
            results = await self._run([item for call in calls for item in call.items])
        except (StoreUnavailable, StoreFull) as error:
            _fail(calls, error)
        except Exception as error:  # noqa: BLE001  # one of them is bad: alone, it fails alone
            if len(calls) == 1:
                _fail(calls, error)
                return
            for call in calls:
                await self._run_batch([call])
        except BaseException as error:
            _fail(calls, error)
            raise
        else:
            at = 0
            for call in calls:
                if not call.future.done():  # its caller may have gone
                    call.future.set_result(results[at : at + len(call.items)])
                at += len(call.items)


def _fail(calls: Sequence[_Call[T, R]], error: BaseException) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)
            call.future.exception()  # marked as seen: a caller that left must not cost a log line
