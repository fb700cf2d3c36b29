"""How long a client may be away when its server is back already."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

import grpc
import pytest

from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_client import _heartbeat
from jobwire_client._backoff import Backoff
from jobwire_client._heartbeat import ACKNOWLEDGED_AFTER, Heartbeat
from jobwire_client.errors import JobwireError, Unavailable

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


class Clock(threading.Condition):
    """Time that passes only while somebody waits, and how long that was each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waits: list[float] = []
        self.interruptions: dict[int, Callable[[], None]] = {}
        """What happens during which wait, and ends it at its beginning."""

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "nobody would end it"
        interruption = self.interruptions.get(len(self.waits))
        self.waits.append(timeout)
        if interruption is None:
            self.now += timeout
        else:
            interruption()
        return interruption is not None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_heartbeat, "time", clock)
    return clock


class Unheard(Heartbeat):
    """Its server does not answer."""

    def __init__(self, lease_duration: float, clock: Clock) -> None:
        super().__init__(grpc.insecure_channel("127.0.0.1:1"), WorkerIdentity(id="w"), lease_duration, lambda *_: None)
        self._changed = self.clock = clock
        self.tries = 0
        self.tried: list[tuple[float, list[str]]] = []

    def _send(self, leases: Sequence[tuple[str, str]]) -> JobwireError | None:
        self.tries += 1
        self.tried.append((self.clock.now, [job_id for _, job_id in leases]))
        self._is_stopping = self.tries == TRIES
        return Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE, reason="UNAVAILABLE")

    def run(self) -> None:
        self.start()
        self._thread.join()


@pytest.mark.parametrize("lease_duration", [1.0, 30.0, 3600.0])
def test_a_delivery_after_a_long_outage_is_acknowledged_in_time_however_long_its_lease(
    lease_duration: float, clock: Clock
) -> None:
    heartbeat = Unheard(lease_duration, clock)
    heartbeat.hold([("token", "job")], lambda: None)
    heartbeat.run()
    assert len(clock.waits) >= TRIES
    assert max(clock.waits) < DELIVERY_TIMEOUT / 2


def test_a_delivery_does_not_wait_for_the_backoff_of_others(clock: Clock) -> None:
    heartbeat = Unheard(3600, clock)
    heartbeat.hold([("token", "old")], lambda: None)
    clock.interruptions[1] = lambda: heartbeat.hold([("other", "new")], lambda: None)
    heartbeat.run()
    assert clock.waits[1] > ACKNOWLEDGED_AFTER, "it is to be waiting for a server that does not answer"
    (first, old), (second, both) = heartbeat.tried[:2]
    assert (old, both) == (["old"], ["old", "new"])
    assert second - first == pytest.approx(ACKNOWLEDGED_AFTER)


def test_a_job_that_is_settled_at_once_costs_no_beat_and_is_kept_until_that_is_answered(clock: Clock) -> None:
    heartbeat = Unheard(30, clock)
    heartbeat.hold([("short", "settled"), ("long", "runs on")], lambda: None)
    heartbeat.settling("short")
    heartbeat.run()
    assert heartbeat.tried[0] == (1000 + ACKNOWLEDGED_AFTER, ["runs on"])
    assert heartbeat.tried[1][1] == ["settled", "runs on"], "a round beats for all that is held"
