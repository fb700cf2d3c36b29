"""How long a client may be away when its server is back already."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc
import pytest

from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_client._backoff import Backoff
from jobwire_client._heartbeat import Heartbeat
from jobwire_client.errors import JobwireError, Unavailable

T = TypeVar("T")

TRIES = 20
RUNS_AGAIN_WITHIN = 5.0
CHANNEL = 1.2
"""A channel of ours tries again within a second, which gRPC spreads by a fifth."""
DELIVERY_TIMEOUT = 10.0
"""The server's default."""


@pytest.fixture(autouse=True)
def unlucky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each random wait is the longest that it may be."""
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)


def test_the_longest_wait_after_a_long_outage_keeps_the_promise_of_5_seconds() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(TRIES)]
    assert waits == sorted(waits)
    assert waits[-1] + CHANNEL < RUNS_AGAIN_WITHIN


class Clockless(threading.Condition):
    """Waits for nothing, and remembers how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        self.waits.append(timeout or 0)
        return predicate()


class Unheard(Heartbeat):
    """Its server does not answer."""

    def __init__(self, lease_duration: float) -> None:
        super().__init__(grpc.insecure_channel("127.0.0.1:1"), WorkerIdentity(id="w"), lease_duration, lambda *_: None)
        self._changed = self.clockless = Clockless()
        self.tries = 0
        self.tried: list[list[str]] = []

    def _send(self, leases: Sequence[tuple[str, str]]) -> JobwireError | None:
        self.tries += 1
        self.tried.append([job_id for _, job_id in leases])
        self._is_stopping = self.tries == TRIES
        return Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE, reason="UNAVAILABLE")


@pytest.mark.parametrize("lease_duration", [1.0, 30.0, 3600.0])
def test_a_delivery_after_a_long_outage_is_acknowledged_in_time_however_long_its_lease(lease_duration: float) -> None:
    heartbeat = Unheard(lease_duration)
    heartbeat.hold([("token", "job")], lambda: None)
    heartbeat.start()
    heartbeat._thread.join()
    _, *waits = heartbeat.clockless.waits  # the first is for the first round
    assert waits
    assert max(waits) < DELIVERY_TIMEOUT / 2


class Interrupted(Clockless):
    """A delivery comes while the heartbeat waits for a server that does not answer."""

    def __init__(self, deliver: Callable[[], None]) -> None:
        super().__init__()
        self._deliver = deliver

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        if len(self.waits) == 1:
            assert not predicate(), "it is to be waiting"
            self._deliver()
            assert predicate(), "the delivery ends the wait"
        return super().wait_for(predicate, timeout)


def test_a_delivery_does_not_wait_for_the_backoff_of_others() -> None:
    heartbeat = Unheard(3600)
    heartbeat._changed = Interrupted(lambda: heartbeat.hold([("other", "new")], lambda: None))
    heartbeat.hold([("token", "old")], lambda: None)
    heartbeat.start()
    heartbeat._thread.join()
    assert heartbeat.tried[:2] == [["old"], ["old", "new"]]
