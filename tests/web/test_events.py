"""Watches as Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from tests.web.conftest import PATIENCE, Web

from jobwire_server.app import App


class Told:
    """What comes on one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.head = ""

    async def begin(self) -> None:
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()

    async def next(self) -> tuple[str, Any]:
        """The name and the data of the next event."""
        name = "message"
        while line := (await self._reader.readline()).decode().rstrip("\r\n") or "\n":
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            if field == "data":
                return name, json.loads(value)
        raise AssertionError("the stream has ended")


@asynccontextmanager
async def listening(web: Web, path: str, request: object) -> AsyncIterator[Told]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await web.connect()
        asked = f"GET {path}?request={quote(json.dumps(request))} HTTP/1.1\r\nHost: {web.address}\r\n\r\n"
        writer.write(asked.encode())
        told = Told(reader)
        await told.begin()
        yield told
        writer.close()


async def test_stats_come_again_and_again(web: Web) -> None:
    await web.call("JobService/CreateJob", {"job": {"queue": "mail"}})
    async with listening(web, "/events/stats", {"interval": "0.1s"}) as told:
        assert "text/event-stream" in told.head
        assert "cache-control: no-store" in told.head
        for _ in range(3):
            name, message = await told.next()
            assert name == "message"
            assert [each["queue"] for each in message["stats"]["queues"]] == ["mail"]


async def test_the_end_of_a_job_is_told_and_line_breaks_in_it_break_nothing(web: Web) -> None:
    await web.call("JobService/CreateJob", {"job": {"id": "a", "type": "x\n\ndata: no\r\n"}})
    async with listening(web, "/events/jobs", {"job_ids": ["a"]}) as told:
        while "snapshot_done" not in (await told.next())[1]:
            pass
        await web.call("JobService/CancelJob", {"job_id": "a", "reason": "one\n\nevent: refused\ndata: {}"})
        _, message = await told.next()
        [job] = message["changed"]["jobs"]
        assert (job["state"], job["type"]) == ("JOB_STATE_CANCELED", "x\n\ndata: no\r\n")


async def test_a_watch_that_is_refused_is_answered_like_a_call(web: Web) -> None:
    wrong = quote(json.dumps({"job_ids": ["a b"]}))
    answer = await web.get(f"/events/jobs?request={wrong}")
    assert (answer.status, answer.reason) == (400, "INVALID_FIELD")
    answer = await web.get("/events/jobs?request=nonsense")
    assert (answer.status, answer.reason) == (400, "INVALID_MESSAGE")


async def test_a_drain_ends_the_stream_and_says_why(web: Web, app: App) -> None:
    async with listening(web, "/events/jobs", {"job_ids": ["a"]}) as told:
        while "snapshot_done" not in (await told.next())[1]:
            pass
        stopping = asyncio.create_task(app.stop())
        name, message = await told.next()
        assert (name, message["code"]) == ("refused", "unavailable")
        await stopping


async def test_the_watch_ends_when_the_client_goes(web: Web, app: App) -> None:
    async with listening(web, "/events/stats", {}) as told:
        await told.next()
    async with asyncio.timeout(PATIENCE):
        await app._server.gate.idle()  # nothing is under way any more


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_site_holds_no_stream_open(web: Web, site: str) -> None:
    assert (await web.get("/events/stats", sec_fetch_site=site)).status == 403
    assert (await web.get("/events/claims")).status == 404
