"""Answers that go on: what a service writes to a stream, in one form or another, until it or the client ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobwire_server.rpc.interceptors import PROTO, Codec, Gate, Method, Refused
from jobwire_server.web.answers import HttpCaller, error_body, refusal_body


class Form(Protocol):
    """How a stream is written."""

    @property
    def codec(self) -> Codec:
        """How its messages are, and the request was."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer."""

    def opening(self) -> bytes:
        """Before the first message."""

    def message(self, written: bytes) -> bytes:
        """One message that the codec has written."""

    def ending(self, error: Mapping[str, Any] | None) -> bytes:
        """After the last one; with what went wrong, if something did."""

    def instead(self, error: Mapping[str, Any]) -> Response | None:
        """What answers a call that is refused before its stream has begun; None: a stream that ends at once."""


class Streaming(Response):
    """Begins when the service has accepted the call, and ends with it, or when the client goes."""

    def __init__(
        self, method: Method, gate: Gate, request: Request, raw: bytes, form: Form, *, timeout: float | None = None
    ) -> None:
        self.background = None
        self._method = method
        self._gate = gate
        self._request = request
        self._raw = raw
        self._form = form
        self._timeout = timeout

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
        listener = _Listener(self._request, self._method, self._form, send)
        error: Mapping[str, Any] | None = None
        try:
            async with asyncio.timeout(self._timeout):
                await self._gate.feed(self._method, self._raw, listener, self._form.codec)
        except Refused as refused:
            error = refusal_body(refused.refusal)
        except TimeoutError:
            error = error_body("deadline_exceeded", "the stream has lasted as long as it may")
        if error is not None and not listener.has_begun and (answer := self._form.instead(error)) is not None:
            return await answer(scope, receive, send)
        await listener.send_initial_metadata(())
        return await listener.tell(self._form.ending(error), more=False)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Listener(HttpCaller):
    """Stands where gRPC's context stands."""

    def __init__(self, request: Request, method: Method, form: Form, send: Send) -> None:
        super().__init__(request)
        self._response_class = method.response_class
        self._form = form
        self._send = send
        self.has_begun = False

    async def send_initial_metadata(self, _: Any, /) -> None:
        """The headers; the second time nothing."""
        if self.has_begun:
            return
        self.has_begun = True
        headers = [(name.encode(), value.encode()) for name, value in self._form.headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.tell(self._form.opening())

    async def write(self, message: bytes, /) -> None:
        codec = self._form.codec
        written = message if codec is PROTO else codec.write(self._response_class.FromString(message))
        await self.tell(self._form.message(written))

    async def tell(self, written: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": written, "more_body": more})
