"""The contract over HTTP, by the Connect protocol: `POST /jobwire.v1.JobService/GetJob` with JSON or protobuf.

https://connectrpc.com/docs/protocol, without GET. A call passes the same gate as one over gRPC, so
parsing, limits, errors and the log are the same; there is no second list of RPCs.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from jobwire_server.domain.errors import JobwireError, Reason, too_large
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.interceptors import PROTO, Codec, Gate, Method, Refused
from jobwire_server.rpc.status import refusal
from jobwire_server.web.answers import JSON, HttpCaller, error_response, refusal_response
from jobwire_server.web.protection import is_from_browser
from jobwire_server.web.streaming import Streaming

_TIMEOUT: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_BODY_TIMEOUT: Final = 30.0
"""Seconds in which a request must have come whole: who is slower holds memory for nothing."""
_FORM: Final = "application/x-www-form-urlencoded"


_CODECS: Final = {"application/json": JSON, "application/proto": PROTO}
"""Of calls that answer once."""
_STREAMED: Final = {"application/connect+json": JSON, "application/connect+proto": PROTO}
"""Of those that answer by a stream."""
_PACKED, _LAST = 1, 2
"""Flags of an envelope."""


class Gateway:
    """An endpoint for every RPC."""

    def __init__(self, methods: Mapping[str, Method], gate: Gate, limits: Limits) -> None:
        self._methods = methods
        self._gate = gate
        self._limits = limits

    async def call(self, request: Request) -> Response:
        method = self._methods.get(request.url.path)
        if method is None:
            return error_response("unimplemented", f"there is no RPC at {request.url.path}", status=404)
        content_type = _content_type(request)
        codecs = _STREAMED if method.is_stream else _CODECS
        codec = codecs.get(content_type)
        if codec is None:
            known = ", ".join(codecs)
            wrong = error_response("invalid_argument", f"the Content-Type must be one of: {known}", status=415)
            wrong.headers["accept-post"] = known
            return wrong
        if (version := request.headers.get("connect-protocol-version")) not in (None, "1"):
            return error_response("invalid_argument", f"Connect-Protocol-Version is {version[:20]}, and must be 1")
        timeout = request.headers.get("connect-timeout-ms")
        if timeout is not None and not _TIMEOUT.fullmatch(timeout):
            return error_response("invalid_argument", "Connect-Timeout-Ms must be a number of at most ten digits")
        seconds = None if timeout is None else int(timeout) / 1000
        try:
            if method.is_stream:
                raw = await self._enveloped(request)
                return Streaming(method, self._gate, request, raw, _Envelopes(content_type, codec), timeout=seconds)
            async with asyncio.timeout(seconds):
                body = await self._body(request, request.headers.get("content-encoding", "identity"))
                answer = await _unless_gone(request, self._gate.answer(method, body, HttpCaller(request), codec))
        except Refused as refused:
            return refusal_response(refused.refusal)
        except TimeoutError:
            return error_response("deadline_exceeded", "what was asked took longer than Connect-Timeout-Ms allows")
        except ClientDisconnect:
            return error_response("canceled", "the client has gone")
        return Response(answer, media_type=content_type)

    async def _enveloped(self, request: Request) -> bytes:
        """The one message that a call of a stream sends, in its envelope: flags, length, content. Raises Refused."""
        body = await self._body(request, "identity")
        if len(body) < 5 or len(body) != 5 + int.from_bytes(body[1:5]) or body[0] & ~_PACKED:
            raise _told(JobwireError(Reason.INVALID_MESSAGE, "the body is not one message in its envelope"))
        message = body[5:]
        if not body[0] & _PACKED:
            return message
        if request.headers.get("connect-content-encoding") != "gzip":
            raise _told(JobwireError(Reason.NOT_BUILT, "Connect-Content-Encoding must be one of: gzip, identity"))
        return _unpacked(message, self._limits.receive)

    async def _body(self, request: Request, encoding: str) -> bytes:
        """The whole body, unpacked. Raises Refused."""
        if encoding not in ("identity", "gzip"):
            raise _told(JobwireError(Reason.NOT_BUILT, "Content-Encoding must be one of: gzip, identity"))
        limit = self._limits.receive
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_TIMEOUT):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise _told(too_large("the body", max(size, _length(request)), limit))
                    parts.append(part)
        except TimeoutError as error:
            raise ClientDisconnect from error
        body = b"".join(parts)
        return _unpacked(body, limit) if encoding == "gzip" and body else body


class _Envelopes:
    """How Connect writes a stream: each message in an envelope, and a last one that says how it ended."""

    def __init__(self, content_type: str, codec: Codec) -> None:
        self.codec = codec
        self.headers = {"content-type": content_type}

    def opening(self) -> bytes:
        return b""

    def message(self, written: bytes) -> bytes:
        return _envelope(0, written)

    def ending(self, error: Mapping[str, Any] | None) -> bytes:
        return _envelope(_LAST, json.dumps({} if error is None else {"error": error}).encode())

    def instead(self, _: Mapping[str, Any]) -> None:
        """Nothing: a client of a stream reads the error from its end."""


def _envelope(flags: int, content: bytes) -> bytes:
    return bytes([flags]) + len(content).to_bytes(4) + content


def _told(error: JobwireError) -> Refused:
    return Refused(refusal(error))


def _content_type(request: Request) -> str:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # `curl -d '{…}'` says that it sends a form. A form of a page in a browser never holds JSON, since it is encoded;
    # only a script could send that, and with it the browser sends an Origin.
    if content_type == _FORM and not is_from_browser(request.scope):
        return "application/json"
    return content_type


def _length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if _TIMEOUT.fullmatch(length) else 0


def _unpacked(body: bytes, limit: int) -> bytes:
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise _told(JobwireError(Reason.INVALID_MESSAGE, "the body is not gzip")) from error
    if len(unpacked) > limit:
        raise _told(too_large("the unpacked body", len(unpacked), limit))
    if not unpacking.eof or unpacking.unused_data:
        raise _told(JobwireError(Reason.INVALID_MESSAGE, "the body is not gzip to its end"))
    return unpacked


async def _unless_gone(request: Request, answering: Coroutine[Any, Any, bytes]) -> bytes:
    """The answer; cancelled when the client goes away, as gRPC does. Raises ClientDisconnect."""
    answer = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        gone.cancel()
        if not answer.done():
            answer.cancel()
            await asyncio.wait([answer])
            if not answer.cancelled():
                answer.exception()  # it is told to nobody, and must not be called forgotten
