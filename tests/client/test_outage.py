"""How an outage is told: the cause in a few words, each new one, then what is worth waiting for."""

from __future__ import annotations

import logging

import grpc
import pytest

from jobwire_client._outage import REMINDER, Outage, brief
from jobwire_client.errors import JobwireError, StoreUnavailable, Unavailable

ADDRESSES = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:7272: Failed to connect to remote"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (f"{ADDRESSES} host: Connection refused", "UNAVAILABLE: connection refused"),
        ("Stream removed (Socket closed)", "UNAVAILABLE: connection closed"),
        ("recvmsg:Connection reset by peer", "UNAVAILABLE: connection closed"),
        ("UNAVAILABLE", "UNAVAILABLE"),
    ],
)
def test_what_grpc_says_is_cut_to_its_cause(message: str, told: str) -> None:
    assert brief(Unavailable(message, code=grpc.StatusCode.UNAVAILABLE, reason="UNAVAILABLE")) == told


def test_what_a_jobwire_server_says_stays_as_it_is() -> None:
    message = "the store is away: disk I/O error"
    error: JobwireError = StoreUnavailable(message, code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE")
    assert brief(error) == f"STORE_UNAVAILABLE: {message}"


def test_each_new_cause_is_said_once_and_again_after_a_minute() -> None:
    now = 1_000.0
    outage = Outage(clock=lambda: now)
    assert outage.level("draining", is_expected=True) == logging.INFO
    assert outage.level("refused") == logging.WARNING
    now += REMINDER - 1
    assert outage.level("refused") == logging.DEBUG
    now += 1
    assert outage.level("refused") == logging.WARNING
    assert outage.level("refused") == logging.DEBUG
    assert outage.end() == REMINDER
    assert outage.end() is None
    assert outage.level("refused") == logging.WARNING
