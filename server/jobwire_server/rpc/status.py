"""Errors on the wire: the one table from reason to gRPC code, and the one shape of a refusal."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # the package ships no types
from grpc import StatusCode

from jobwire.v1 import errors_pb2
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import SECOND
from jobwire_server.store.base import StoreFull, StoreUnavailable

DOMAIN: Final = "jobwire"
DETAILS_TRAILER: Final = "grpc-status-details-bin"
REASON_TRAILER: Final = "jobwire-reason"

_MESSAGE_LENGTH: Final = 500
"""Characters. The message travels three times in the trailers, and peers refuse metadata of more than 8 KiB."""
_METADATA_LENGTH: Final = 200


CODES: Final[Mapping[Reason, StatusCode]] = {
    Reason.INVALID_MESSAGE: StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_FIELD: StatusCode.INVALID_ARGUMENT,
    Reason.JOB_EXISTS: StatusCode.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: StatusCode.INVALID_ARGUMENT,
    Reason.JOB_NOT_FOUND: StatusCode.NOT_FOUND,
    Reason.QUEUE_NOT_FOUND: StatusCode.NOT_FOUND,
    Reason.WORKER_NOT_FOUND: StatusCode.NOT_FOUND,
    Reason.ILLEGAL_TRANSITION: StatusCode.FAILED_PRECONDITION,
    Reason.LEASE_REQUIRED: StatusCode.FAILED_PRECONDITION,
    Reason.LEASE_LOST: StatusCode.FAILED_PRECONDITION,
    Reason.ALREADY_SETTLED: StatusCode.FAILED_PRECONDITION,
    Reason.ETAG_MISMATCH: StatusCode.ABORTED,
    Reason.CONTENDED: StatusCode.ABORTED,
    Reason.SUPERSEDED: StatusCode.ABORTED,
    Reason.NOT_ACKNOWLEDGING: StatusCode.FAILED_PRECONDITION,
    Reason.TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_STREAMS: StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_CALLS: StatusCode.RESOURCE_EXHAUSTED,
    Reason.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    Reason.STORE_UNAVAILABLE: StatusCode.UNAVAILABLE,
    Reason.STORE_FULL: StatusCode.RESOURCE_EXHAUSTED,
    Reason.SERVER_DRAINING: StatusCode.UNAVAILABLE,
    Reason.NOT_BUILT: StatusCode.UNIMPLEMENTED,
    Reason.INTERNAL: StatusCode.INTERNAL,
}
"""UNKNOWN is not among them and never sent; INTERNAL only for our own bugs."""

STORE_RETRY: Final = SECOND
"""What a caller is told to wait when the store is away."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a call, or an item of a batch, was refused: all that the caller is told."""

    reason: Reason
    message: str
    field: str | None = None
    retry_after: int | None = None
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    quoted: str = ""
    """What the message goes on with for the caller alone: words of its own."""

    @property
    def code(self) -> StatusCode:
        return CODES[self.reason]

    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        return (DETAILS_TRAILER, self.status().SerializeToString()), (REASON_TRAILER, self.reason.value)

    def details(self) -> list[Message]:
        """What programs read: ErrorInfo first."""
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason.value, domain=DOMAIN, metadata=self.metadata)
        ]
        if self.field is not None:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after is not None:
            delay = Duration(seconds=self.retry_after // SECOND, nanos=self.retry_after % SECOND * 1000)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        return details

    def status(self) -> status_pb2.Status:
        packed = []
        for detail in self.details():
            packed.append(Any())
            packed[-1].Pack(detail)
        return status_pb2.Status(code=number(self.code), message=self.message, details=packed)

    def item(self) -> errors_pb2.ItemError:
        return errors_pb2.ItemError(
            code=number(self.code), reason=self.reason.value, message=self.message, metadata=self.metadata
        )


def refusal(error: Exception) -> Refusal:
    """What the caller is told of an error. Of an unexpected one nothing but an id that finds it in our log."""
    match error:
        case JobwireError() if error.reason is not Reason.INTERNAL:
            metadata = {key: _cut(value, _METADATA_LENGTH) for key, value in error.metadata.items()}
            if error.field is not None:
                metadata.setdefault("field", error.field)
            return Refusal(
                reason=error.reason,
                message=_cut(error.message, _MESSAGE_LENGTH),
                field=error.field,
                retry_after=error.retry_after,
                metadata=metadata,
                quoted=_cut(error.quoted, _MESSAGE_LENGTH),
            )
        case StoreUnavailable():
            return Refusal(
                reason=Reason.STORE_UNAVAILABLE,
                message="the store is not available now; what was asked may or may not have happened",
                retry_after=STORE_RETRY,
            )
        case StoreFull():
            return Refusal(reason=Reason.STORE_FULL, message="the store has no room; nothing happened")
        case _:
            correlation_id = secrets.token_hex(8)
            return Refusal(
                reason=Reason.INTERNAL,
                message=f"internal error; the server's log has it under the correlation id {correlation_id}",
                metadata={"correlation_id": correlation_id},
            )


def number(code: StatusCode) -> int:
    """The code as it travels."""
    value: int = code.value[0]
    return value


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
