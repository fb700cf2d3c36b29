"""Turns calls that come at the same time into one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar, cast

import grpc
from google.protobuf.message import Message

from jobwire_client._backoff import Backoff
from jobwire_client._calls import is_worth_repeating
from jobwire_client.errors import DeadlineExceeded, JobwireError, Unavailable
from jobwire_client.models import BATCH_BYTES, BATCH_ITEMS

LARGE: Final = 100
"""Items that are worth a further call beside one in flight. Fewer cost less together with what is still to come."""
LONGEST_CALL: Final = 10.0
"""Seconds until a call counts as unanswered, whatever time its callers have."""

# One item can have spoilt a whole call that ended so; after any other refusal each item would be refused as well.
_SPOILT: Final = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
    }
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response")

Send = Callable[[Sequence[Request], float], Awaitable[Sequence[Response | JobwireError]]]
"""Makes one call, within so many seconds: an outcome for each item in order, or the JobwireError of the whole call."""


class _Item(Generic[Request, Response]):
    """One caller's request, until it is answered."""

    __slots__ = ("answer", "bytes", "deadline", "earlier", "is_repeatable", "request")

    def __init__(
        self, request: Request, answer: asyncio.Future[Response], deadline: float, is_repeatable: bool
    ) -> None:
        self.request = request
        self.answer = answer
        self.deadline = deadline
        self.is_repeatable = is_repeatable
        self.bytes = request.ByteSize()
        self.earlier: JobwireError | None = None
        """Why the latest call was no answer to it."""

    def refuse(self, error: JobwireError) -> None:
        if not self.answer.done():
            error.came_after(self.earlier)
            self.answer.set_exception(error)

    def expire(self) -> None:
        late = DeadlineExceeded("no answer in time", code=grpc.StatusCode.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED")
        self.refuse(self.earlier or late)


class Coalescer(Generic[Request, Response]):
    """At most `calls` at a time; what arrives meanwhile gathers for the next. No timer: a lone item waits for nobody.

    Each item has its own outcome. A caller that stops waiting stops nobody else. What may be repeated is sent again, as
    it was, until there is an answer or its deadline has passed. With one call at a time items stay in order. Its own
    caller waits for each item, so no more can gather than there are callers: whoever is faster is held up.
    """

    def __init__(self, send: Send[Request, Response], *, calls: int) -> None:
        self._send = send
        self._calls = calls
        self._waiting: deque[_Item[Request, Response]] = deque()
        self._lanes: set[asyncio.Task[None]] = set()

    async def submit(self, request: Request, *, deadline: float | None, is_repeatable: bool = True) -> Response:
        """The answer, or the JobwireError; by the loop's clock not after `deadline`."""
        loop = asyncio.get_running_loop()
        latest = float("inf") if deadline is None else deadline
        item: _Item[Request, Response] = _Item(request, loop.create_future(), latest, is_repeatable)
        self._waiting.append(item)
        if not self._lanes or (len(self._lanes) < self._calls and len(self._waiting) >= LARGE):
            # A task, so that whoever is about to call in the same turn of the loop comes along.
            lane = loop.create_task(self._run())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        if deadline is None:
            return await item.answer
        timer = loop.call_at(deadline, item.expire)
        try:
            return await item.answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Refuses what is still unanswered; its outcome is unknown."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        _close(self._waiting)
        self._waiting.clear()

    async def _run(self) -> None:
        backoff = Backoff()
        while self._waiting and (len(self._lanes) == 1 or len(self._waiting) >= LARGE):
            batch = self._take()
            try:
                wait = await self._deliver(batch)
            except BaseException:
                _close(batch)
                raise
            if wait is None:
                backoff.reset()
                # A turn of the loop: callers that have just been answered come again with the next batch.
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(backoff.next(at_least=wait))
        # Nothing may be awaited from here on: what came now would wait for a lane that has looked already.
        self._lanes.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _take(self) -> list[_Item[Request, Response]]:
        batch: list[_Item[Request, Response]] = []
        size = 0
        waiting = self._waiting
        while waiting and len(batch) < BATCH_ITEMS:
            item = waiting[0]
            if not item.answer.done():
                size += item.bytes
                if batch and size > BATCH_BYTES:
                    break
                batch.append(item)
            waiting.popleft()
        return batch

    async def _deliver(self, batch: Sequence[_Item[Request, Response]]) -> float | None:
        """Answers each item or puts it back; then the answer is how long the server asked to wait."""
        if not batch:
            return None
        patience = max(item.deadline for item in batch) - asyncio.get_running_loop().time()
        outcomes: Sequence[Response | JobwireError]
        try:
            outcomes = await self._send([item.request for item in batch], min(patience, LONGEST_CALL))
        except JobwireError as error:
            if len(batch) > 1 and error.code in _SPOILT and not is_worth_repeating(error, is_repeatable=True):
                half = len(batch) // 2
                waits = [await self._deliver(batch[:half]), await self._deliver(batch[half:])]
                return max((wait for wait in waits if wait is not None), default=None)
            outcomes = [error] * len(batch)
        again: list[_Item[Request, Response]] = []
        asked = 0.0
        for item, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, JobwireError):
                if not item.answer.done():
                    item.answer.set_result(outcome)
            elif is_worth_repeating(outcome, is_repeatable=item.is_repeatable):
                item.earlier = outcome
                asked = max(asked, outcome.retry_after or 0)
                again.append(item)
            else:
                item.refuse(outcome)
        if not again:
            return None
        self._put_back(again)
        return asked

    def _put_back(self, items: Sequence[_Item[Request, Response]]) -> None:
        """In front of what has come meanwhile, so that changes of one job stay in order."""
        self._waiting.extendleft(reversed(items))


def _close(items: Iterable[_Item[Request, Response]]) -> None:
    for item in items:
        item.refuse(
            Unavailable("closed before there was an answer", code=grpc.StatusCode.CANCELLED, reason="CANCELLED")
        )
