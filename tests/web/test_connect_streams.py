"""Streams of the contract over HTTP: messages in envelopes, and a last one that says how it ended."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.rpc.standins import running
from tests.web.conftest import PATIENCE, Web, beside

from jobwire.v1 import job_service_pb2 as api
from jobwire_server.app import App

STORES = pytest.mark.parametrize("engine", ["sqlite", "valkey"])


def envelope(content: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + len(content).to_bytes(4) + content


class Told:
    """What a stream says, message by message."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.status = 0
        self.content_type = ""

    async def head(self) -> None:
        first, *headers = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        self.status = int(first.split()[1])
        self.content_type = next(line.partition(": ")[2] for line in headers if line.startswith("content-type"))

    async def raw(self) -> tuple[bool, bytes]:
        """Whether it is the last one, and its content."""
        async with asyncio.timeout(PATIENCE):
            flags, *size = await self._reader.readexactly(5)
            return bool(flags & 2), await self._reader.readexactly(int.from_bytes(bytes(size)))

    async def next(self) -> Any:
        is_last, content = await self.raw()
        assert not is_last, content
        return json.loads(content)

    async def end(self) -> Any:
        is_last, content = await self.raw()
        assert is_last, content
        async with asyncio.timeout(PATIENCE):
            assert await self._reader.read() == b""
        return json.loads(content)


@asynccontextmanager
async def streaming(
    web: Web,
    rpc: str,
    request: object,
    *,
    content_type: str = "application/connect+json",
    body: bytes = b"",
    **headers: str,
) -> AsyncIterator[Told]:
    """HTTP/1.0, whose answers go on without chunks until the connection ends."""
    body = body or envelope(request if isinstance(request, bytes) else json.dumps(request).encode())
    sent = {"host": web.address, "content-type": content_type, "content-length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST /jobwire.v1.{rpc} HTTP/1.0", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    reader, writer = await web.connect()
    writer.write("\r\n".join(lines).encode() + body)
    told = Told(reader)
    try:
        async with asyncio.timeout(PATIENCE):
            await told.head()
        yield told
    finally:
        writer.close()


@STORES
async def test_a_watch_tells_what_becomes_of_a_job(web: Web) -> None:
    await web.call("JobService/CreateJob", {"job": {"id": "j"}})
    async with streaming(web, "JobService/WatchJobs", {"job_ids": ["j"]}) as told:
        assert (told.status, told.content_type) == (200, "application/connect+json")
        events = [await told.next() for _ in range(3)]
        assert [next(iter(event)) for event in events] == ["snapshot_started", "changed", "snapshot_done"]
        await web.call("JobService/CancelJob", {"job_id": "j"})
        assert "JOB_STATE_CANCELED" in json.dumps(await told.next())


@STORES
async def test_a_worker_can_claim_over_http(web: Web) -> None:
    await web.call("JobService/CreateJob", {"job": {"id": "j"}})
    request = api.ClaimJobRequest(max_jobs=1).SerializeToString()
    async with streaming(web, "JobService/ClaimJob", request, content_type="application/connect+proto") as told:
        is_last, content = await told.raw()
        assert not is_last
        [assignment] = api.ClaimJobResponse.FromString(content).jobs.assignments
        assert await told.end() == {}
    settled = {"job_id": "j", "token": assignment.token, "complete": {"result": {"text": "done"}}}
    assert (await web.call("JobService/UpdateJob", settled)).status == 200


@STORES
async def test_what_a_client_that_has_gone_did_not_acknowledge_goes_back_at_once(web: Web) -> None:
    await web.call("JobService/CreateJob", {"job": {"id": "j"}})
    async with streaming(web, "JobService/ClaimJob", {}) as told:
        assert (await told.next())["jobs"]["assignments"][0]["job"]["id"] == "j"
    async with asyncio.timeout(5):  # its delivery lease is ten seconds
        while (await web.call("JobService/GetJob", {"job_id": "j"})).json["job"]["state"] != "JOB_STATE_QUEUED":
            pass


async def test_a_stream_that_is_refused_ends_with_the_reason(web: Web) -> None:
    async with streaming(web, "JobService/WatchJobs", {"job_ids": ["??"]}) as told:
        assert told.status == 200
        error = (await told.end())["error"]
    assert error["code"] == "invalid_argument"
    assert error["details"][0]["debug"]["reason"] == "INVALID_FIELD"


async def test_a_drain_ends_it_and_says_so(app: App, web: Web) -> None:
    await web.call("JobService/CreateJob", {"job": {"id": "j"}})
    async with streaming(web, "JobService/WatchJobs", {"job_ids": ["j"]}) as told:
        await told.next()
        stopping = asyncio.create_task(app._watches.drain())
        while not (last := await told.raw())[0]:
            pass
        assert json.loads(last[1])["error"]["code"] == "unavailable"
        await stopping


async def test_it_ends_with_its_deadline(web: Web) -> None:
    async with streaming(web, "JobService/ClaimJob", {}, connect_timeout_ms="50") as told:
        assert (await told.end())["error"]["code"] == "deadline_exceeded"


async def test_the_request_may_be_packed(web: Web) -> None:
    packed = envelope(gzip.compress(b'{"max_jobs": 1, "wait_timeout": "0.01s"}'), flags=1)
    async with streaming(web, "JobService/ClaimJob", {}, body=packed, connect_content_encoding="gzip") as told:
        assert await told.end() == {}
    async with streaming(web, "JobService/ClaimJob", {}, body=packed) as told:
        assert told.status == 501


@pytest.mark.parametrize(
    "body",
    [b"{}", envelope(b"{}")[:-1], envelope(b"{}") + envelope(b"{}"), envelope(b"{}", flags=2), b"\0\xff\xff\xff\xff{}"],
    ids=["none", "cut off", "two", "the last", "a lie"],
)
async def test_a_body_that_is_not_one_envelope_is_refused(web: Web, body: bytes) -> None:
    async with streaming(web, "JobService/ClaimJob", {}, body=body) as told:
        assert told.status == 400


async def test_a_packed_request_over_the_limit_is_refused() -> None:
    packed = envelope(gzip.compress(b" " * 20_000), flags=1)
    async with (
        running(receive=10_000) as run,
        beside(run) as web,
        streaming(web, "JobService/ClaimJob", {}, body=packed, connect_content_encoding="gzip") as told,
    ):
        assert told.status == 429
