"""What WatchStats and WatchJobs tell, as Server-Sent Events: for the dashboard, or for `curl -N`.

`GET /events/stats?request={"interval": "2s"}`, `/events/jobs?request={"job_ids": ["a"]}`: each message of the stream is
an event, its `data` the message as JSON. A refusal before the first is an answer like that of any other call; after it,
it is an event named `refused`, the last one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobwire_server.rpc.interceptors import Gate, Method
from jobwire_server.web.answers import JSON, error_answer, error_response
from jobwire_server.web.streaming import Streaming

_STREAMS: Final = {
    "/events/stats": "/jobwire.v1.AdminService/WatchStats",
    "/events/jobs": "/jobwire.v1.JobService/WatchJobs",
}
"""Those that only read: a GET must change nothing, so there is none for ClaimJob."""

_RETRY: Final = b"retry: 1000\n\n"
"""Milliseconds after which a browser asks again when the connection is gone."""


def events(methods: Mapping[str, Method], gate: Gate) -> Iterator[Route]:
    """A route for each."""
    for path, name in _STREAMS.items():
        yield Route(path, _Endpoint(methods[name], gate).answer)


class _Endpoint:
    def __init__(self, method: Method, gate: Gate) -> None:
        self._method = method
        self._gate = gate

    async def answer(self, request: Request) -> Response:
        # A page elsewhere could not read it, but it could hold streams open.
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return error_response("permission_denied", "events are for pages of this server")
        raw = request.query_params.get("request", "").encode()
        return Streaming(self._method, self._gate, request, raw, _Events())


class _Events:
    codec = JSON
    headers: ClassVar = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}

    def opening(self) -> bytes:
        return _RETRY

    def message(self, written: bytes) -> bytes:
        # JSON of one line: a line break inside a text is escaped there.
        return b"data: %b\n\n" % written

    def ending(self, error: Mapping[str, Any] | None) -> bytes:
        return b"" if error is None else b"event: refused\ndata: %b\n\n" % json.dumps(error).encode()

    def instead(self, error: Mapping[str, Any]) -> Response:
        return error_answer(error)
