"""`jobwire workers` and `drain`."""

from __future__ import annotations

import grpc
from tests.cli.conftest import Shell

from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire.v1.worker_service_pb2 import HeartbeatRequest
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub


def register(address: str, *ids: str) -> None:
    with grpc.insecure_channel(address) as channel:
        for id in ids:
            identity = WorkerIdentity(id=id, version="1.2.3")
            WorkerServiceStub(channel).Heartbeat(HeartbeatRequest(worker=identity))


def test_workers_are_listed_for_people_and_programs(jobwire: Shell, address: str) -> None:
    register(address, "listed-1", "listed-2")
    table = jobwire("workers")
    assert table.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in table.out.splitlines()}
    assert rows["WORKER"] == ["STATE", "HOLDS", "LIMIT", "BEAT", "QUEUES", "VERSION"]
    assert rows["listed-1"][:3] == ["IDLE", "0", "-"]
    assert rows["listed-2"][-1] == "1.2.3"
    found = jobwire("workers", "--output", "json").lines
    assert {"listed-1", "listed-2"} <= {worker["identity"]["id"] for worker in found}
    assert jobwire("workers", "--state", "lost").err == "no such workers\n"
    assert jobwire("workers", "--state", "asleep").code == 2


def test_a_worker_is_drained_ended_and_let_go_on(jobwire: Shell, address: str) -> None:
    register(address, "drained")
    quiet = jobwire("drain", "drained")
    assert (quiet.code, quiet.out) == (
        0,
        "drained gets no more jobs; it holds nothing; `jobwire drain drained --undo` lifts it\n",
    )
    assert [each["identity"]["id"] for each in jobwire("workers", "--state", "quiet", "--output", "json").lines] == [
        "drained"
    ]
    assert "is to end; it holds nothing" in jobwire("drain", "drained", "--terminate").out
    assert "told to end" in jobwire("workers").out
    lifted = jobwire("drain", "drained", "--undo", "--output", "json").json
    assert (lifted["state"], lifted["directive"]) == ("WORKER_STATE_IDLE", "WORKER_DIRECTIVE_NONE")
    assert jobwire("drain", "drained", "--undo", "--terminate").code == 2


def test_an_unknown_worker_is_told_and_the_others_are_drained(jobwire: Shell, address: str) -> None:
    register(address, "known")
    ran = jobwire("drain", "nobody", "known")
    assert ran.code == 4
    assert "there is no worker 'nobody'" in ran.err
    assert "`jobwire workers`" in ran.err
    assert ran.out.startswith("known gets no more jobs")
