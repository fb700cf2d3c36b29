"""The heartbeat: a thread, so that nothing a handler does to the event loop loses a lease."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from jobwire.v1.worker_pb2 import WorkerDirective, WorkerIdentity
from jobwire.v1.worker_service_pb2 import HeartbeatRequest, LeaseBeat, LeaseStatus
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobwire_client._backoff import LONGEST, Backoff
from jobwire_client._outage import Outage, brief, is_expected
from jobwire_client.errors import JobwireError, from_rpc_error

LEASES_AT_ONCE: Final = 1_000
SHORTEST_CALL: Final = 1.0
LONGEST_CALL: Final = 5.0
"""Seconds until a beat counts as unanswered: well below the time in which a delivery must be acknowledged."""
ACKNOWLEDGED_AFTER: Final = 0.02
"""Seconds a delivery waits for its first beat: a settlement acknowledges as well, so that short jobs need none. What
kills its process within these comes back unacknowledged, and is ended by the 20th such return."""
IDLE: Final = 10.0
"""Seconds between beats that renew nothing. They only ask for the operator's directive."""

log = logging.getLogger("jobwire.worker")


@dataclass(frozen=True, slots=True)
class Beaten:
    """What one beat found of one lease."""

    token: str
    status: LeaseStatus


Heard = Callable[[Sequence[Beaten], WorkerDirective.ValueType], None]
"""Called in the heartbeat's thread with the answer to each beat."""


class Heartbeat:
    """Beats soon for a lease that is new, and for all of them every third of the lease's length."""

    def __init__(self, channel: grpc.Channel, worker: WorkerIdentity, lease_duration: float, heard: Heard) -> None:
        self._workers = WorkerServiceStub(channel)
        self._worker = worker
        self._interval = lease_duration / 3
        self._timeout = min(max(self._interval, SHORTEST_CALL), LONGEST_CALL)
        self._heard = heard
        self._changed = threading.Condition()
        self._held: dict[str, str] = {}
        self._unacknowledged: dict[str, str] = {}
        self._is_stopping = False
        self._next_round = 0.0
        self._not_before = 0.0
        """While the server cannot be reached, those wait that it has not heard of."""
        self._news_due: float | None = None
        """When to beat because a delivery has come since the latest beat, or one was asked for: there is somebody who
        can be told."""
        self._is_asked = False
        # A daemon: whatever becomes of the worker, its process can end.
        self._thread = threading.Thread(target=self._beat, name="jobwire-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; waits for a beat under way."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def hold(self, leases: Sequence[tuple[str, str]], announce: Callable[[], object]) -> None:
        """Beats for these (token, job id) from now on, and once soon: whoever delivers can be reached. Calls `announce`
        before any answer to that can come."""
        with self._changed:
            announce()
            self._held.update(leases)
            self._unacknowledged.update(leases)
            if self._news_due is None:
                self._news_due = time.monotonic() + ACKNOWLEDGED_AFTER
                self._changed.notify()

    def ask(self) -> None:
        """Beats once at once, whatever is held, for the operator's directive."""
        with self._changed:
            self._is_asked = True
            self._news_due = time.monotonic()
            self._changed.notify()

    def settling(self, token: str) -> None:
        """Its settlement, which is on its way, acknowledges it."""
        with self._changed:
            self._unacknowledged.pop(token, None)

    def drop(self, token: str) -> None:
        """Beats for it no more."""
        with self._changed:
            self._held.pop(token, None)
            self._unacknowledged.pop(token, None)

    def _beat(self) -> None:
        # However long the lease: what is delivered after an outage has 10 s to be acknowledged.
        backoff, outage = Backoff(longest=min(self._interval, LONGEST)), Outage()
        latest = time.monotonic()
        self._next_round = latest + self._interval
        while True:
            with self._changed:
                while not self._is_stopping and (wait := self._due() - time.monotonic()) > 0:
                    self._changed.wait(wait)
                if self._is_stopping:
                    return
                now = time.monotonic()
                is_round = now >= self._next_round
                is_asked, self._is_asked = self._is_asked, False
                self._news_due = None
                leases = list((self._held if is_round else self._unacknowledged).items())
            if is_round:
                self._next_round = now + self._interval
            if not leases and not is_asked and now < latest + IDLE:
                continue
            error = self._send(leases)
            if error is None:
                latest = now
                self._not_before = 0.0
                backoff.reset()
                outage.end()
            else:
                wait = backoff.next()
                self._next_round = self._not_before = time.monotonic() + wait
                # One without leases renews nothing; that the server is away is said by the claim stream.
                level = outage.level(brief(error), is_expected=is_expected(error)) if leases else logging.DEBUG
                log.log(level, "a heartbeat for %d jobs was not answered: %s", len(leases), brief(error))

    def _due(self) -> float:
        """When to beat next."""
        if self._news_due is not None:
            return min(self._news_due, self._next_round)
        return min(self._not_before, self._next_round) if self._unacknowledged else self._next_round

    def _send(self, leases: Sequence[tuple[str, str]]) -> JobwireError | None:
        """Why some were not answered; None: all were."""
        for start in range(0, len(leases) or 1, LEASES_AT_ONCE):
            some = leases[start : start + LEASES_AT_ONCE]
            request = HeartbeatRequest(
                worker=self._worker, leases=[LeaseBeat(job_id=job_id, token=token) for token, job_id in some]
            )
            try:
                answer = self._workers.Heartbeat(request, timeout=self._timeout)
            except grpc.RpcError as rpc_error:
                return from_rpc_error(rpc_error)
            with self._changed:
                for token, _ in some:
                    self._unacknowledged.pop(token, None)
            self._heard(
                [Beaten(token, status) for (token, _), status in zip(some, answer.leases, strict=True)],
                answer.directive,
            )
        return None
