"""The claim stream, in a thread: a delivery is acknowledged whatever holds up the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import grpc

from jobwire.v1.job_service_pb2 import ClaimJobRequest, ClaimJobResponse
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_client._backoff import Backoff
from jobwire_client._outage import Outage, brief, is_expected
from jobwire_client.errors import JobwireError, Superseded, from_rpc_error

SILENCE: Final = 45.0
"""Seconds without a word, three keepalives, after which a stream counts as dead although its connection lives."""
LOOK: Final = 5.0
"""Seconds between two looks whether it is silent."""
STEADY: Final = 0.2
"""Seconds that a stream must have lived for the outage before it to be over: a refusal begins as a stream does."""

T = TypeVar("T")

_FINAL: Final = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
)
"""The same request would be refused again."""

log = logging.getLogger("jobwire.worker")


class Beats(Protocol):
    """What acknowledges deliveries: the heartbeat."""

    def hold(self, leases: list[tuple[str, str]], announce: Callable[[], object]) -> None:
        """Beats for these (token, job id); calls `announce` before any answer to that can come."""


class Claims:
    """Keeps one claim stream open, and hands its events to the event loop in order."""

    def __init__(
        self,
        channel: grpc.Channel,
        worker_id: str,
        request: Callable[[], ClaimJobRequest],
        beats: Beats,
        take: Callable[[ClaimJobResponse], None],
    ) -> None:
        """`take` is called in the running event loop."""
        self._jobs = JobServiceStub(channel)
        self._worker_id = worker_id
        self._request = request
        self._beats = beats
        self._take = take
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the thread has ended: after `stop`, or with the error that no reconnecting can mend."""
        self._is_stopping = threading.Event()
        self._outage = Outage()
        self._call: grpc.Call | None = None
        self._heard = time.monotonic()
        # A daemon: whatever becomes of the worker, its process can end.
        self._thread = threading.Thread(target=self._run, name="jobwire-claims", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Closes the stream: the server takes back what is not acknowledged. Await `ended`."""
        self._is_stopping.set()
        if (call := self._call) is not None:
            call.cancel()

    async def watch(self) -> None:
        """Has a stream opened anew that is silent for too long. Returns never."""
        while True:
            await asyncio.sleep(LOOK)
            if time.monotonic() - self._heard > SILENCE and (call := self._call) is not None:
                call.cancel()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._stay_connected()
        except BaseException as failed:  # noqa: BLE001  whatever it is, the worker must hear of it
            error = failed
        self._tell(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    def _stay_connected(self) -> None:
        backoff = Backoff()
        while not self._is_stopping.is_set():
            self._heard = opened = time.monotonic()
            reconnect_after: float | None = None
            error: JobwireError | None = None
            cause = "its stream has ended"
            steady = threading.Timer(STEADY, self._log_recovery)
            steady.daemon = True
            call = self._call = self._jobs.ClaimJob(self._request())
            if self._is_stopping.is_set():
                call.cancel()
            try:
                call.initial_metadata()
                if self._outage.is_under_way:
                    steady.start()
                for event in call:
                    self._heard = time.monotonic()
                    backoff.reset()
                    if event.HasField("drain") and event.drain.HasField("reconnect_after"):
                        reconnect_after = event.drain.reconnect_after.ToTimedelta().total_seconds()
                    self._pass_on(event)
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                cause = brief(error)
            finally:
                steady.cancel()
                call.cancel()
            if self._is_stopping.is_set():
                return
            if isinstance(error, Superseded) or (error and error.code in _FINAL):
                log.error("worker %s ends: %s", self._worker_id, error)
                raise error
            if time.monotonic() - self._heard > SILENCE:
                cause = f"its stream was silent for {SILENCE:g} s"
            if time.monotonic() - opened > SILENCE:
                backoff.reset()
            retry_after = error.retry_after if error else None
            wait = backoff.next(at_least=retry_after if reconnect_after is None else reconnect_after)
            level = self._outage.level(cause, is_expected=is_expected(error))
            log.log(level, "worker %s has no stream and keeps trying: %s", self._worker_id, cause)
            self._is_stopping.wait(wait)

    def _pass_on(self, event: ClaimJobResponse) -> None:
        if event.HasField("jobs"):
            leases = [(assignment.token, assignment.job.id) for assignment in event.jobs.assignments]
            self._beats.hold(leases, lambda: self._tell(self._take, event))
        elif not event.HasField("keepalive"):
            self._tell(self._take, event)

    def _tell(self, heard: Callable[[T], None], what: T) -> None:
        try:
            self._loop.call_soon_threadsafe(heard, what)
        except RuntimeError:  # the loop has ended without us; nobody is left to be told
            log.debug("the claim stream had something to say after the end")

    def _log_recovery(self) -> None:
        if (seconds := self._outage.end()) is not None:
            log.info("worker %s is connected again after %.1f s", self._worker_id, seconds)
