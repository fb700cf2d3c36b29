"""Nothing that is secret reaches the log: neither what jobs carry, nor tokens, nor passwords."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import pytest
from tests.server_process import ServerProcess
from tests.valkey_process import Keyspace

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_server.service.principals import Role, entry, token_digest

CANARY = "s3cr3t-canary"
PASSWORD = "hunter2-canary"
TOKEN, WEAK, WRONG = "jw_of-the-admin-canary", "jw_of-the-viewer-canary", "jw_of-nobody-canary"
JOBWIRE = [sys.executable, "-c", "from jobwire_client.cli import main; main(prog_name='jobwire')"]
ENGINES = ["sqlite", "valkey"]


@pytest.fixture
def store_url(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> Iterator[str]:
    if keyspace is None:
        yield f"sqlite:///{tmp_path}/jobs.db"
        return
    with keyspace.server.client() as client:
        client.acl_setuser(
            "few", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"], commands=["+@all"]
        )
        yield keyspace.url_of(f"few:{PASSWORD}")
        client.acl_deluser("few")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_run_prints_neither_what_jobs_carry_nor_tokens_nor_passwords(
    engine: str,
    keyspace: Keyspace | None,
    store_url: str,
    log_format: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = tmp_path / "server.log"
    monkeypatch.setenv("JOBWIRE_STORE", store_url)
    for name, setting, content in (
        ("tokens", "JOBWIRE_TOKENS", entry("admin", [Role.ADMIN], TOKEN) + entry("viewer", [Role.VIEWER], WEAK)),
        ("token", "JOBWIRE_TOKEN_FILE", TOKEN),
    ):
        (tmp_path / name).write_text(content)
        monkeypatch.setenv(setting, str(tmp_path / name))
    options = ("--http", "127.0.0.1:0", "--log-level", "debug", "--log-format", log_format)
    server = ServerProcess("", log, "127.0.0.1:0", *options)
    server.start()
    try:
        tokens = lives(server)
        worked = work(server)
        told = failures(server, keyspace)
        greeting = server.rest_of_greeting()
    finally:
        server.terminate()
    printed = greeting + log.read_text() + worked + jobwire("config", "show")
    assert "CreateJob from" in printed, "the log says nothing"
    assert (tmp_path / "token").name in printed, "config show says nothing"
    secrets = [
        TOKEN,
        WEAK,
        WRONG,
        token_digest(TOKEN),
        CANARY,
        PASSWORD,
        base64.b64encode(CANARY.encode()).decode(),
        *tokens,
    ]
    assert [secret for secret in secrets if secret in printed] == []
    assert [secret for secret in (PASSWORD, TOKEN, WEAK, WRONG, token_digest(TOKEN)) if secret in told] == []
    if log_format == "json":
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert {"INVALID_MESSAGE", "LEASE_LOST", "TOO_LARGE", "UNAUTHENTICATED", "PERMISSION_DENIED"} <= {
            line.get("reason") for line in lines
        }


def lives(server: ServerProcess) -> list[str]:
    """Jobs that carry the canary wherever one can; answers the tokens of their leases."""
    job: dict[str, Any] = {
        "payload": {"text": CANARY},
        "labels": {"label": CANARY},
        "http": {"headers": [{"name": "authorization", "values": [{"value": CANARY}]}], "route_params": {"a": CANARY}},
        "user_id": CANARY,
        "type": CANARY,
    }
    for number in range(5):
        assert post(server, "CreateJob", {"job": job, "request_id": f"{CANARY}-{number}"})[0] == 200
    tokens = []
    with grpc.insecure_channel(server.address) as channel:
        claims = JobServiceStub(channel).ClaimJob(
            api.ClaimJobRequest(max_jobs=4, max_in_flight=4), metadata=(("authorization", f"Bearer {TOKEN}"),)
        )
        given = [assignment for event in claims for assignment in event.jobs.assignments]
    error = {"code": "Oops", "message": CANARY, "details": {"why": CANARY}}
    changes: list[dict[str, Any]] = [
        {"progress": {"message": CANARY}},
        {"complete": {"result": {"text": CANARY}}},
        {"fail": {"error": error, "permanent": True}},
        {"fail": {"error": error}},
    ]
    for assignment, change in zip(given, changes, strict=True):
        tokens.append(assignment.token)
        told = {"job_id": assignment.job.id, "token": assignment.token, **change}
        assert post(server, "UpdateJob", told)[0] == 200
        post(server, "CancelJob", {"job_id": assignment.job.id, "reason": CANARY})
    return tokens


def work(server: ServerProcess) -> str:
    """What `jobwire work` prints over a job that fails. The type of a job is no secret of its own: its log names it."""
    job = {"queue": "work", "payload": {"text": CANARY}, "labels": {"label": CANARY}, "user_id": CANARY}
    assert post(server, "CreateJob", {"job": job})[0] == 200
    words = ["--address", server.address, "--queue", "work", "--exec", "sh -c 'cat; exit 3'"]
    with subprocess.Popen([*JOBWIRE, "work", *words], stderr=subprocess.PIPE, text=True) as working:
        assert working.stderr is not None
        printed = ""
        while "failed in attempt" not in printed:
            line = working.stderr.readline()
            assert line, f"it has ended: {printed}"
            printed += line
        working.terminate()
        return printed + working.stderr.read()


def jobwire(*words: str) -> str:
    """What the command prints."""
    ran = subprocess.run([*JOBWIRE, *words], capture_output=True, text=True, timeout=60, check=False)
    return ran.stdout + ran.stderr


def failures(server: ServerProcess, keyspace: Keyspace | None) -> str:
    """Whatever can be wrong, with the canary in it; answers what the caller is told."""
    bodies: list[tuple[str, Any]] = [
        ("CreateJob", {"job": {"payload": {"text": CANARY}, "retry_policy": {"jitter": 2}}}),
        ("CreateJob", {"job": {"payload": {"text": CANARY * 100_000}}}),
        ("CreateJob", {"job": {"payload": {"text": CANARY}, "labels": {CANARY: CANARY * 100}}}),
        ("CreateJob", {"job": {"priority": CANARY}}),
        ("CreateJob", {CANARY: 1}),
        ("CreateJob", f'{{"job": "{CANARY}'.encode()),
        ("UpdateJob", {"job_id": "nobody", "token": "00" * 16, "complete": {"result": {"text": CANARY}}}),
        ("UpdateJob", {"job_id": "nobody", "token": CANARY, "complete": {}}),
        ("ListJobs", {"page_token": CANARY}),
        ("ListJobs", {"filter": {"labels": {"label": CANARY}, "user_id": CANARY}}),
    ]
    post(server, "CreateJob", {"job": {"id": "twice", "payload": {"text": CANARY}}})
    bodies.append(("CreateJob", {"job": {"id": "twice", "payload": {"text": CANARY + "!"}}}))
    bodies.append(("UpdateJob", {"job_id": "twice", "token": "00" * 16, "complete": {"result": {"text": CANARY}}}))
    told = "".join(post(server, rpc, body)[1] for rpc, body in bodies)
    for token in (WEAK, WRONG):
        basic = base64.b64encode(f"ann:{token}".encode()).decode()
        told += "".join(post(server, "CreateJob", {}, shown)[1] for shown in (f"Bearer {token}", f"Basic {basic}"))
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
            JobServiceStub(channel).CreateJob(api.CreateJobRequest(), metadata=(("authorization", f"Bearer {token}"),))
        told += str(refused.value)
    if keyspace is not None:
        with keyspace.server.client() as client:
            client.acl_setuser("few", enabled=True, reset_passwords=True)
            client.client_kill_filter(skipme=True)
            told += post(server, "CreateJob", {"job": {"payload": {"text": CANARY}}})[1]
    return told


def post(server: ServerProcess, rpc: str, body: Any, shown: str = f"Bearer {TOKEN}") -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://{server.http}/jobwire.v1.JobService/{rpc}"
    try:
        with urlopen(
            Request(url, data, {"content-type": "application/json", "authorization": shown}), timeout=60
        ) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
