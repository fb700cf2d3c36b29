"""Settlements, many to a call."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from jobwire.v1.job_service_pb2 import (
    BatchUpdateJobsRequest,
    BatchUpdateJobsResponse,
    UpdateJobRequest,
    UpdateJobResponse,
)
from jobwire_client._backoff import Backoff
from jobwire_client._outage import brief
from jobwire_client.client import in_batches
from jobwire_client.errors import JobwireError, from_item_error, from_rpc_error

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

TIMEOUT: Final = 10.0
"""Seconds until one call counts as unanswered. Short leases are beaten meanwhile."""

LONGEST_WAIT: Final = 2.0
"""Seconds between repeats at most: each settlement that waits is a job that others wait for."""

log = logging.getLogger("jobwire.worker")


@dataclass(frozen=True, slots=True, eq=False)
class _Update:
    request: UpdateJobRequest
    answer: asyncio.Future[UpdateJobResponse]


class Settler:
    """Sends the updates of one worker: one call in flight, the rest gather for the next. No timer."""

    def __init__(self, jobs: JobServiceAsyncStub) -> None:
        self._jobs = jobs
        self._waiting: deque[_Update] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def send(self, request: UpdateJobRequest) -> UpdateJobResponse:
        """Delivers one update; raises the JobwireError that it was refused with.

        An unanswered settlement is repeated with the same token until an answer comes, however long that takes: the
        server accepts it late as long as nobody else was given the job, and tells when somebody was. An unanswered
        progress report is not repeated.
        """
        update = _Update(request, asyncio.get_running_loop().create_future())
        self._waiting.append(update)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await update.answer

    async def close(self) -> None:
        """Gives up what is still unanswered."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _send_all(self) -> None:
        backoff = Backoff(longest=LONGEST_WAIT)
        try:
            while self._waiting:
                updates = [update for update in self._waiting if not update.answer.done()]
                self._waiting.clear()
                batches = in_batches([update.request for update in updates])
                batch = updates[: len(next(iter(batches), ()))]
                self._waiting.extend(updates[len(batch) :])
                if (wait := await self._send_batch(batch, backoff)) is not None:
                    await asyncio.sleep(wait)
        finally:
            self._sending = None

    async def _send_batch(self, batch: Sequence[_Update], backoff: Backoff) -> float | None:
        """Answers each update, or puts it back to be sent again; then the answer is how long to wait before that."""
        if not batch:
            return None
        try:
            answer: BatchUpdateJobsResponse = await self._jobs.BatchUpdateJobs(
                BatchUpdateJobsRequest(requests=[update.request for update in batch]), timeout=TIMEOUT
            )
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            if _is_worth_repeating(error):
                log.info("%d updates are not answered yet, sending them again: %s", len(batch), brief(error))
                self._put_back(batch, error)
                return backoff.next(at_least=error.retry_after)
            if len(batch) == 1:
                _refuse(batch[0], error)
                return None
            # One of them may have spoilt the whole call: each on its own.
            for update in batch:
                if (wait := await self._send_batch([update], backoff)) is not None:
                    await asyncio.sleep(wait)
            return None
        wait = None
        for update, result in zip(batch, answer.results, strict=True):
            if not result.HasField("error"):
                _accept(update, result.response)
                continue
            error = from_item_error(result.error)
            if _is_worth_repeating(error):
                self._put_back([update], error)
                wait = backoff.next()
            else:
                _refuse(update, error)
        if wait is None:
            backoff.reset()
        return wait

    def _put_back(self, batch: Sequence[_Update], error: JobwireError) -> None:
        """In front of what has come meanwhile: updates of one job stay in order."""
        for update in reversed(batch):
            if update.request.HasField("progress"):
                _refuse(update, error)
            else:
                self._waiting.appendleft(update)


def _is_worth_repeating(error: JobwireError) -> bool:
    return error.is_outcome_unknown or error.retry_after is not None or error.reason == "CONTENDED"


def _accept(update: _Update, response: UpdateJobResponse) -> None:
    if not update.answer.done():
        update.answer.set_result(response)


def _refuse(update: _Update, error: JobwireError) -> None:
    if not update.answer.done():
        update.answer.set_exception(error)
