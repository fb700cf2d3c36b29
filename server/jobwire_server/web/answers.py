"""What every endpoint of the contract shares: JSON, errors as Connect tells them, and who calls."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.rpc.interceptors import Codec
from jobwire_server.rpc.status import Refusal

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


NAMES: Final = "jobwire.certificate_names"
"""In a request's scope: the names in the client's certificate, as gRPC tells them."""


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

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {"x509_subject_alternative_name": self._request.scope.get(NAMES, ())}


def error_response(code: str, message: str, *, status: int | None = None) -> Response:
    return error_answer(error_body(code, message), status=status)


def refusal_response(told: Refusal) -> Response:
    return error_answer(refusal_body(told))


def error_answer(body: Mapping[str, Any], *, status: int | None = None) -> Response:
    return JSONResponse(body, status_code=STATUSES[body["code"]] if status is None else status)


def error_body(code: str, message: str) -> Mapping[str, Any]:
    return {"code": code, "message": message}


def refusal_body(told: Refusal) -> Mapping[str, Any]:
    code = {"CANCELLED": "canceled"}.get(told.code.name, told.code.name.lower())
    message = f"{told.message}: {told.quoted}" if told.quoted else told.message
    return {"code": code, "message": message, "details": [_detail(detail) for detail in told.details()]}


def _detail(detail: Message) -> dict[str, Any]:
    return {
        "type": detail.DESCRIPTOR.full_name,
        "value": base64.b64encode(detail.SerializeToString()).decode().rstrip("="),
        "debug": json_format.MessageToDict(detail),  # for people; programs read `value`
    }
