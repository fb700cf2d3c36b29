"""The contract over HTTP: the same calls, errors and limits as over gRPC."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
from contextlib import AsyncExitStack
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # the package ships no types
from grpc import StatusCode, aio
from tests.rpc.standins import SECRET, big_job, running
from tests.web.conftest import Answer, Web, beside

from jobwire.v1 import job_pb2
from jobwire.v1 import job_service_pb2 as api
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.domain.job import Job
from jobwire_server.rpc.server import SERVICES
from jobwire_server.rpc.status import CODES
from jobwire_server.web.answers import STATUSES

METHODS = [method for service in SERVICES.values() for method in service.methods]
GET = {"job_id": "j"}


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_a_job_is_created_found_and_cancelled(web: Web) -> None:
    created = (await web.call("JobService/CreateJob", {"job": {"id": "j", "payload": {"text": "¡hola!"}}})).json
    assert (created["created"], created["job"]["state"]) == (True, "JOB_STATE_QUEUED")
    found = (await web.call("JobService/GetJob", GET)).json["job"]
    assert found["payload"] == {"text": "¡hola!"}
    assert found["etag"] == created["job"]["etag"]
    cancelled = (await web.call("JobService/CancelJob", {"jobId": "j", "reason": "no need"})).json["job"]
    assert cancelled["state"] == "JOB_STATE_CANCELED"
    assert (await web.call("JobService/CountJobs")).json["total"] == "1"


async def test_every_rpc_says_of_an_empty_request_what_it_says_over_grpc() -> None:
    app = App(Config(store="memory://", listen="127.0.0.1:0", drain_timeout=1))
    address = await app.start()
    assert app.http_address is not None
    web = Web(app.http_address)
    try:
        async with aio.insecure_channel(address) as channel:
            for method in METHODS:
                await says_the_same(channel, web, method)
    finally:
        await app.stop()


async def says_the_same(channel: Any, web: Web, method: MethodDescriptor) -> None:
    rpc = f"{method.containing_service.name}/{method.name}"
    answer = await web.call(rpc)
    if method.server_streaming:
        assert (answer.status, answer.headers["accept-post"]) == (
            415,
            "application/connect+json, application/connect+proto",
        )
        return
    call = channel.unary_unary(f"/jobwire.v1.{rpc}")(b"", timeout=10)
    code = await call.code()
    if code is StatusCode.OK:
        assert answer.status == 200, rpc
        fields = GetMessageClass(method.output_type).FromString(await call).ListFields()
        assert set(answer.json) == {field.name for field, _ in fields}, rpc
    else:
        told = (answer.json["code"], answer.json["message"], answer.reason)
        trailers = dict(await call.trailing_metadata())
        assert told == (code.name.lower(), await call.details(), trailers["jobwire-reason"]), rpc
        assert answer.status == STATUSES[answer.json["code"]]


async def test_protobuf_travels_as_well(web: Web) -> None:
    request = api.CreateJobRequest(job=job_pb2.Job(id="j", payload=job_pb2.Payload(data=b"\xff")))
    answer = await web.call("JobService/CreateJob", request.SerializeToString(), content_type="application/proto")
    assert answer.headers["content-type"] == "application/proto"
    assert api.CreateJobResponse.FromString(answer.body).job.payload.data == b"\xff"
    answer = await web.call("JobService/GetJob", b"\xff\xff", content_type="application/proto")
    assert (answer.status, answer.reason) == (400, "INVALID_MESSAGE")


async def test_a_form_without_a_browser_is_json_that_curl_has_sent(web: Web) -> None:
    form = "application/x-www-form-urlencoded"
    answer = await web.call("JobService/CreateJob", {"job": {"id": "j"}}, content_type=form)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    for header in ({"origin": f"http://{web.address}"}, {"sec_fetch_site": "same-origin"}):
        answer = await web.call("JobService/CreateJob", {"job": {"id": "k"}}, content_type=form, **header)
        assert answer.status == 415
    assert (await web.call("JobService/CountJobs")).json["total"] == "1"


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "application/grpc", ""])
async def test_what_is_neither_json_nor_protobuf_is_refused(web: Web, content_type: str) -> None:
    answer = await web.call("JobService/CreateJob", {}, content_type=content_type)
    assert (answer.status, answer.headers["accept-post"]) == (415, "application/json, application/proto")
    assert (await web.call("JobService/CountJobs")).json.get("total") is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"job": {"tpye": "s3cr3t"}}', '"tpye"'),
        (b'{"job": {"priority": "s3cr3t"}}', "s3cr3t"),
        (b'{"job": {"id": "s3cr3t"', "delimiter"),
        (b'"s3cr3t"', "CreateJobRequest"),
        (b"s3cr3t\xff", "utf-8"),
        (b"[" * 100_000, "CreateJobRequest"),
    ],
    ids=["no such field", "no number", "cut off", "no object", "not UTF-8", "deep"],
)
async def test_a_body_that_is_no_request_is_explained_to_its_sender_and_not_to_the_log(
    web: Web, body: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = await web.call("JobService/CreateJob", body)
    assert (answer.status, answer.reason) == (400, "INVALID_MESSAGE")
    assert told in answer.json["message"]
    assert "CreateJob from http:127.0.0.1:" in caplog.text
    assert SECRET not in caplog.text


async def test_an_error_carries_the_details_that_a_program_reads(web: Web) -> None:
    answer = await web.call("JobService/CreateJob", {"job": {"retry_policy": {"jitter": 2}}})
    assert (answer.status, answer.json["code"], answer.reason) == (400, "invalid_argument", "INVALID_FIELD")
    info, bad = answer.json["details"]
    assert (info["type"], bad["type"]) == ("google.rpc.ErrorInfo", "google.rpc.BadRequest")
    assert bad["debug"]["fieldViolations"][0]["field"] == "job.retry_policy.jitter"
    raw = base64.b64decode(info["value"] + "=" * (-len(info["value"]) % 4))
    assert error_details_pb2.ErrorInfo.FromString(raw).reason == "INVALID_FIELD"


def test_every_code_of_ours_has_the_status_that_connect_gives_to_it() -> None:
    ours = {code.name.lower() for code in CODES.values()}
    assert ours <= set(STATUSES)
    assert {code.name.lower() for code in StatusCode} - set(STATUSES) == {"ok", "cancelled"}


async def test_a_path_of_no_rpc_is_unimplemented(web: Web) -> None:
    for path in ("/jobwire.v1.JobService/Explode", "/jobwire.v2.JobService/GetJob", "/grpc.health.v1.Health/Check"):
        assert (await web.ask("POST", path, b"{}", {"content-type": "application/json"})).status == 404
    assert (await web.get("/jobwire.v1.JobService/GetJob")).status == 405


async def test_a_later_connect_protocol_is_refused(web: Web) -> None:
    assert (await web.call("JobService/CountJobs", connect_protocol_version="1")).status == 200
    answer = await web.call("JobService/CountJobs", connect_protocol_version="2")
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")


async def test_a_gzipped_body_is_read(web: Web) -> None:
    packed = gzip.compress(b'{"job": {"id": "j"}}')
    assert (await web.call("JobService/CreateJob", packed, content_encoding="gzip")).json["created"]
    for wrong in (packed[:-9], b"no gzip", packed + packed):
        answer = await web.call("JobService/CreateJob", wrong, content_encoding="gzip")
        assert (answer.status, answer.reason) == (400, "INVALID_MESSAGE")
    answer = await web.call("JobService/CreateJob", packed, content_encoding="br")
    assert (answer.status, answer.json["code"]) == (501, "unimplemented")


class Slow:
    """A store that answers when it is told to."""

    def __init__(self) -> None:
        self.arrived, self.go_on, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self) -> list[Job | None]:
        self.arrived.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return [big_job("j", 0)]


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_over_the_limit_is_refused(packed: bool) -> None:
    body = b'{"job": {"type": "' + b"x" * 20_000 + b'"}}'
    async with running(receive=10_000) as run, beside(run) as web:
        if packed:
            answer = await web.call("JobService/CreateJob", gzip.compress(body), content_encoding="gzip")
        else:
            answer = await web.call("JobService/CreateJob", body)
        assert (answer.status, answer.json["code"], answer.reason) == (429, "resource_exhausted", "TOO_LARGE")
        assert answer.json["details"][0]["debug"]["metadata"]["limit"] == "10000"
        assert not run.services.created


async def test_a_call_ends_with_its_deadline() -> None:
    async with running() as run, beside(run) as web:
        run.services.on_get = slow = Slow()
        answer = await web.call("JobService/GetJob", GET, connect_timeout_ms="50")
        assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
        assert slow.cancelled.is_set()
        for wrong in ("-1", "1.5", "soon", "12345678901"):
            answer = await web.call("JobService/GetJob", GET, connect_timeout_ms=wrong)
            assert (answer.status, answer.json["code"]) == (400, "invalid_argument")


async def test_a_call_is_cancelled_when_its_client_goes_away() -> None:
    async with running() as run, beside(run) as web:
        run.services.on_get = slow = Slow()
        _, writer = await web.connect()
        writer.write(
            f"POST /jobwire.v1.JobService/GetJob HTTP/1.1\r\nhost: {web.address}\r\ncontent-type: application/json\r\n"
            'content-length: 14\r\n\r\n{"job_id":"j"}'.encode()
        )
        async with asyncio.timeout(10):
            await slow.arrived.wait()
            writer.close()
            await slow.cancelled.wait()


async def test_calls_over_http_count_for_the_limit_of_calls() -> None:
    async with running(calls_in_flight=1) as run, beside(run) as web:
        run.services.on_get = slow = Slow()
        held = asyncio.ensure_future(run.jobs.GetJob(api.GetJobRequest(job_id="j")))
        await slow.arrived.wait()
        answer = await web.call("JobService/GetJob", GET)
        assert (answer.status, answer.reason) == (429, "TOO_MANY_CALLS")
        slow.go_on.set()
        await held


async def test_a_draining_server_finishes_what_is_under_way_and_refuses_the_rest() -> None:
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(running())
        web = await stack.enter_async_context(beside(run))
        run.services.on_get = slow = Slow()
        held: asyncio.Task[Answer] = asyncio.create_task(web.call("JobService/GetJob", GET))
        await slow.arrived.wait()
        stopping = asyncio.create_task(run.server.stop(grace=30))
        while (answer := await web.call("JobService/CreateJob", {"job": {"id": "late"}})).status == 200:
            pass  # the gate closes a few steps of the loop after we asked
        assert (answer.status, answer.reason) == (503, "SERVER_DRAINING")
        slow.go_on.set()
        assert (await held).json["job"]["id"] == "j"
        await stopping


async def test_a_bug_is_internal_and_leaks_nothing() -> None:
    async def broken() -> list[Job | None]:
        raise RuntimeError(SECRET)

    async with running() as run, beside(run) as web:
        run.services.on_get = broken
        answer = await web.call("JobService/GetJob", GET)
        assert (answer.status, answer.json["code"], answer.reason) == (500, "internal", "INTERNAL")
        assert SECRET.encode() not in answer.body
