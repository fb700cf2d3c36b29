"""What WatchStats and WatchJobs tell, as Server-Sent Events: for the dashboard, or for `curl -N`.

`GET /events/stats?request={"interval": "2s"}`, `/events/jobs?request={"job_ids": ["a"]}`: each message of the stream is
an event, its `data` the message as JSON. A refusal before the first is an answer like that of any other call; after it,
it is an event named `refused`, the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jobwire_server.rpc.interceptors import Gate, Method, Refused
from jobwire_server.web.connect import JSON, HttpCaller, error_response, refusal_response

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
        return _Stream(self._method, self._gate, request)


class _Stream(Response):
    """Begins when the service has accepted the watch, and ends with it, or when the client goes."""

    def __init__(self, method: Method, gate: Gate, request: Request) -> None:
        self.background = None
        self._method = method
        self._gate = gate
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feeding = asyncio.ensure_future(self._feed(scope, receive, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait([feeding, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            feeding.cancel()
            await asyncio.wait([feeding])
        if not feeding.cancelled():
            feeding.result()

    async def _feed(self, scope: Scope, receive: Receive, send: Send) -> None:
        listener = _Listener(self._request, self._method.response_class, send)
        raw = self._request.query_params.get("request", "").encode()
        try:
            await self._gate.feed(self._method, raw, listener, JSON)
        except Refused as refused:
            answer = refusal_response(refused.refusal)
            if not listener.has_begun:
                return await answer(scope, receive, send)
            await listener.tell(b"event: refused\ndata: %b\n\n" % bytes(answer.body))
        return await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Listener(HttpCaller):
    """Stands where gRPC's context stands: what a service writes goes out as an event."""

    def __init__(self, request: Request, response_class: type[Message], send: Send) -> None:
        super().__init__(request)
        self._response_class = response_class
        self._send = send
        self.has_begun = False

    async def send_initial_metadata(self, _: Any, /) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self.has_begun = True
        await self.tell(_RETRY)

    async def write(self, message: bytes, /) -> None:
        # JSON of one line: a line break inside a text is escaped there.
        await self.tell(b"data: %b\n\n" % JSON.write(self._response_class.FromString(message)))

    async def tell(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": True})
