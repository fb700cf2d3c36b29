"""The contract over HTTP, by the Connect protocol: `POST /jobwire.v1.JobService/GetJob` with JSON or protobuf.

https://connectrpc.com/docs/protocol, the unary part without GET. A call passes the same gate as one over gRPC, so
parsing, limits, errors and the log are the same; there is no second list of RPCs.
"""

from __future__ import annotations

import asyncio
import base64
import re
import zlib
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from jobwire_server.domain.errors import JobwireError, Reason, too_large
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.interceptors import PROTO, Codec, Gate, Method, Refused
from jobwire_server.rpc.status import Refusal, refusal
from jobwire_server.web.protection import is_from_browser

STATUSES: Final[Mapping[str, int]] = {
    "canceled": 499,
    "unknown": 500,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}
"""Connect's table: the HTTP status of each code."""

_TIMEOUT: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_BODY_TIMEOUT: Final = 30.0
"""Seconds in which a request must have come whole: who is slower holds memory for nothing."""
_FORM: Final = "application/x-www-form-urlencoded"


def _read_json(request_class: type[Message], raw: bytes) -> Message:
    name = request_class.DESCRIPTOR.name
    try:
        return json_format.Parse(raw or b"{}", request_class())
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        says = str(error).partition("\n")[0]  # the rest lists every field there is
        raise JobwireError(Reason.INVALID_MESSAGE, f"the body is not the JSON of {name}", quoted=says) from error


def _write_json(message: Message) -> bytes:
    # As in the protos and in grpcurl's examples: `job_id`, not `jobId`. Both are read.
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None).encode()


JSON: Final = Codec(_read_json, _write_json)
_CODECS: Final = {"application/json": JSON, "application/proto": PROTO}


class Gateway:
    """An endpoint for every RPC that answers once."""

    def __init__(self, methods: Mapping[str, Method], gate: Gate, limits: Limits) -> None:
        self._methods = methods
        self._gate = gate
        self._limits = limits

    async def call(self, request: Request) -> Response:
        method = self._methods.get(request.url.path)
        if method is None:
            return error_response("unimplemented", f"there is no RPC at {request.url.path}", status=404)
        content_type = _content_type(request)
        codec = _CODECS.get(content_type)
        if codec is None:
            known = ", ".join(_CODECS)
            wrong = error_response("invalid_argument", f"the Content-Type must be one of: {known}", status=415)
            wrong.headers["accept-post"] = known
            return wrong
        if (version := request.headers.get("connect-protocol-version")) not in (None, "1"):
            return error_response("invalid_argument", f"Connect-Protocol-Version is {version[:20]}, and must be 1")
        timeout = request.headers.get("connect-timeout-ms")
        if timeout is not None and not _TIMEOUT.fullmatch(timeout):
            return error_response("invalid_argument", "Connect-Timeout-Ms must be a number of at most ten digits")
        try:
            async with asyncio.timeout(None if timeout is None else int(timeout) / 1000):
                if method.is_stream:
                    raise _told(
                        JobwireError(
                            Reason.NOT_BUILT, f"{method.name} answers by a stream, and that is served over gRPC alone"
                        )
                    )
                body = await self._body(request)
                answer = await _unless_gone(request, self._gate.answer(method, body, HttpCaller(request), codec))
        except Refused as refused:
            return refusal_response(refused.refusal)
        except TimeoutError:
            return error_response("deadline_exceeded", "what was asked took longer than Connect-Timeout-Ms allows")
        except ClientDisconnect:
            return error_response("canceled", "the client has gone")
        return Response(answer, media_type=content_type)

    async def _body(self, request: Request) -> bytes:
        """The whole body, unpacked. Raises Refused."""
        encoding = request.headers.get("content-encoding", "identity")
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


class HttpCaller:
    """Whoever sent a request, as the log names it."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def peer(self) -> str:
        """As gRPC names peers: kind, address, port."""
        client = self._request.client
        return "http" if client is None else f"http:{client.host}:{client.port}"

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self._request.headers.items()


def error_response(
    code: str, message: str, *, details: list[dict[str, Any]] | None = None, status: int | None = None
) -> Response:
    body: dict[str, Any] = {"code": code, "message": message}
    if details:
        body["details"] = details
    return JSONResponse(body, status_code=STATUSES[code] if status is None else status)


def refusal_response(told: Refusal) -> Response:
    code = {"CANCELLED": "canceled"}.get(told.code.name, told.code.name.lower())
    message = f"{told.message}: {told.quoted}" if told.quoted else told.message
    return error_response(code, message, details=[_detail(detail) for detail in told.details()])


def _detail(detail: Message) -> dict[str, Any]:
    return {
        "type": detail.DESCRIPTOR.full_name,
        "value": base64.b64encode(detail.SerializeToString()).decode().rstrip("="),
        "debug": json_format.MessageToDict(detail),  # for people; programs read `value`
    }


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
