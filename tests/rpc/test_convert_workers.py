"""Claims, beats and recoveries as the domain reads them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.rpc.reading import (
    DIGEST,
    TOKEN,
    Beat,
    ClaimRequest,
    Recover,
    lasting,
    reader,
    refused,
)

from jobwire.v1 import job_service_pb2, worker_pb2, worker_service_pb2
from jobwire_server.domain.errors import Reason
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import (
    HOUR,
    SECOND,
)
from jobwire_server.domain.limits import NAME
from jobwire_server.rpc.answers import lease_status
from jobwire_server.store.base import Renewed


def test_an_empty_claim_gets_every_default() -> None:
    spec = reader.claim(ClaimRequest())
    assert spec.worker.id.startswith("anonymous-")
    assert spec.worker.session == 0
    assert spec.queues == spec.worker.queues == ("default",)
    assert (spec.max_in_flight, spec.max_jobs, spec.wait_timeout) == (1, 0, None)
    assert (spec.lease_duration, spec.delivery_timeout) == (30 * SECOND, 10 * SECOND)


def test_give_me_one_needs_no_acknowledgment() -> None:
    assert reader.claim(ClaimRequest(max_jobs=1)).delivery_timeout == 0
    assert reader.claim(ClaimRequest(max_jobs=1, delivery_timeout=lasting(5))).delivery_timeout == 5
    assert reader.claim(ClaimRequest(delivery_timeout=lasting(0))).delivery_timeout == 0


def test_a_claim_is_read_whole() -> None:
    worker = worker_pb2.WorkerIdentity(
        id="w", session=7, labels={"z": "1"}, host="h", pid=9, runtime="go", version="v1"
    )
    spec = reader.claim(
        ClaimRequest(
            worker=worker,
            queues=["b", "a", "b"],
            max_in_flight=20,
            lease_duration=lasting(HOUR),
            wait_timeout=lasting(SECOND),
            max_jobs=3,
        )
    )
    assert spec.queues == ("b", "a")
    assert (spec.worker.id, spec.worker.session, spec.worker.labels) == ("w", 7, (("z", "1"),))
    assert (spec.worker.host, spec.worker.pid, spec.worker.runtime, spec.worker.version) == ("h", 9, "go", "v1")
    assert (spec.max_in_flight, spec.lease_duration, spec.wait_timeout, spec.max_jobs) == (20, HOUR, SECOND, 3)


@pytest.mark.parametrize("host", ["web-1.example.com", "ünïcode häst", "-._", "x" * 200, ""])
def test_a_worker_id_made_by_the_server_fits_the_grammar(host: str) -> None:
    made = [reader.claim(ClaimRequest(worker=worker_pb2.WorkerIdentity(host=host, pid=4))).worker.id for _ in "ab"]
    assert all(NAME.fullmatch(name) for name in made)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (ClaimRequest(queues=["q"] * 65), "queues"),
        (ClaimRequest(queues=["q", ""]), "queues[1]"),
        (ClaimRequest(max_in_flight=0), "max_in_flight"),
        (ClaimRequest(max_in_flight=10_001), "max_in_flight"),
        (ClaimRequest(lease_duration=lasting(SECOND - 1)), "lease_duration"),
        (ClaimRequest(lease_duration=lasting(12 * HOUR + 1)), "lease_duration"),
        (ClaimRequest(delivery_timeout=lasting(301 * SECOND)), "delivery_timeout"),
        (ClaimRequest(wait_timeout=Duration(seconds=-1)), "wait_timeout"),
        (ClaimRequest(worker=worker_pb2.WorkerIdentity(id="a/b")), "worker.id"),
        (ClaimRequest(worker=worker_pb2.WorkerIdentity(session=-1)), "worker.session"),
        (ClaimRequest(worker=worker_pb2.WorkerIdentity(runtime="\0")), "worker.runtime"),
    ],
)
def test_a_refused_claim_names_the_field(request_: ClaimRequest, path: str) -> None:
    refused(lambda: reader.claim(request_), path)


def lease(job_id: str = "j", token: str = TOKEN, **fields: Any) -> worker_service_pb2.LeaseBeat:
    return worker_service_pb2.LeaseBeat(job_id=job_id, token=token, **fields)


W = worker_pb2.WorkerIdentity(id="w", session=9)


def test_a_beat_never_carries_the_streams_session() -> None:
    progress = job_service_pb2.ReportProgress(fraction=1.0)
    worker, renewals = reader.heartbeat(Beat(worker=W, leases=[lease(), lease("k", progress=progress)]))
    assert (worker.id, worker.session) == ("w", 0)
    assert [(r.job_id, r.token, r.fraction) for r in renewals] == [("j", DIGEST, None), ("k", DIGEST, 1.0)]


@pytest.mark.parametrize(
    ("request_", "path", "reason"),
    [
        (Beat(), "worker.id", Reason.INVALID_FIELD),
        (Beat(worker=W, leases=[lease(), lease()]), "leases[1].job_id", Reason.INVALID_FIELD),
        (Beat(worker=W, leases=[lease(token="")]), "leases[0].token", Reason.LEASE_REQUIRED),
        (Beat(worker=W, leases=[lease(token="zz")]), "leases[0].token", Reason.INVALID_FIELD),
        (Beat(worker=W, leases=[lease(str(i)) for i in range(1001)]), "leases", Reason.INVALID_FIELD),
    ],
)
def test_a_refused_beat_names_the_field(request_: Beat, path: str, reason: Reason) -> None:
    refused(lambda: reader.heartbeat(request_), path, reason)


def test_a_renewal_is_told_in_the_contracts_three_words() -> None:
    ok = lease_status("j", Renewed(Outcome.OK, remaining=5))
    assert (ok.job_id, ok.state, ok.remaining) == ("j", worker_service_pb2.LEASE_STATE_OK, lasting(5))
    asked = lease_status("j", Renewed(Outcome.OK, remaining=5, cancel_requested=True, cancel_reason="r"))
    assert (asked.state, asked.cancel_reason) == (worker_service_pb2.LEASE_STATE_CANCEL_REQUESTED, "r")
    for outcome in (Outcome.GONE, Outcome.LOST):
        assert lease_status("j", Renewed(outcome)).state == worker_service_pb2.LEASE_STATE_LOST


def test_recovery_is_read_whole() -> None:
    nothing = reader.recover(Recover())
    assert (nothing.queues, nothing.stuck_for, nothing.max_jobs, nothing.validate_only) == ((), None, 1000, False)
    assert (nothing.recovery.max_interruptions, nothing.recovery.initial_delay) == (None, None)
    full = reader.recover(
        Recover(
            queues=["q"],
            stuck_for=lasting(SECOND),
            max_retries=0,
            initial_delay=lasting(0),
            max_jobs=9,
            validate_only=True,
        )
    )
    assert (full.queues, full.stuck_for, full.max_jobs, full.validate_only) == (("q",), SECOND, 9, True)
    assert (full.recovery.max_interruptions, full.recovery.initial_delay) == (0, 0)


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (Recover(stuck_for=lasting(SECOND - 1)), "stuck_for"),
        (Recover(max_retries=1001), "max_retries"),
        (Recover(initial_delay=Duration(seconds=-1)), "initial_delay"),
        (Recover(max_jobs=1001), "max_jobs"),
        (Recover(queues=["/"]), "queues[0]"),
    ],
)
def test_a_refused_recovery_names_the_field(request_: Recover, path: str) -> None:
    refused(lambda: reader.recover(request_), path)
