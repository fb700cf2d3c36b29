"""How jobwire says no, as exceptions: one class per reason that a program may want to act on.

`except JobNotFound` catches one reason, `except Unavailable` a family, `except JobwireError` all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # the package ships no types
    BadRequest,
    ErrorInfo,
    RetryInfo,
)
from grpc_status import rpc_status

from jobwire.v1.errors_pb2 import ItemError

DOMAIN: Final = "jobwire"
REASON_TRAILER: Final = "jobwire-reason"


class JobwireError(Exception):
    """A call or one item of a batch that was refused, or whose outcome is unknown."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        """As in the table of `errors.proto`; the name of the code when no jobwire server has answered."""
        self.message = message
        """One sentence for a person. It may change in any release."""
        self.metadata = dict(metadata or {})
        """What the table lists beside the reason, such as `job_id` or `limit`."""
        self.fields = dict(fields or {})
        """The faulty fields by path, each with what is wrong with it."""
        self.retry_after = retry_after
        """Seconds after which the same call may succeed; None where the server did not say."""
        self.is_outcome_unknown = code in _UNKNOWN
        """The call may have taken effect. False: it changed nothing."""

    def came_after(self, earlier: JobwireError | None) -> None:
        """For whoever repeats calls: an earlier try of unknown outcome may be what a repeat is refused for."""
        if earlier is not None and earlier.is_outcome_unknown and self.reason in _SELF_INFLICTED:
            self.is_outcome_unknown = True


class InvalidField(JobwireError):
    """A value out of its range or grammar; `fields` names it."""


class RequestIdReused(JobwireError):
    """The request_id came earlier with other content."""


class JobExists(JobwireError):
    """The id belongs to a job that was made from other content."""


class NotFound(JobwireError):
    """What the call names is not there."""


class JobNotFound(NotFound):
    """The job is unknown, deleted, or past its retention."""


class QueueNotFound(NotFound):
    """The queue never had a job nor a setting, or has been forgotten since."""


class WorkerNotFound(NotFound):
    """The worker has never been heard, or not for so long that it was forgotten."""


class IllegalTransition(JobwireError):
    """The job's state does not allow it: `metadata` holds `from` and `to`."""


class LeaseRequired(JobwireError):
    """A settlement or progress came without a token."""


class LeaseLost(JobwireError):
    """The token is no longer current and never settled; nothing was changed."""


class AlreadySettled(JobwireError):
    """The token has settled its attempt with another verb: `metadata["outcome"]`."""


class NotAcknowledging(JobwireError):
    """The worker's last 20 deliveries all came back, so it gets no new ones for a while."""


class EtagMismatch(JobwireError):
    """The job or queue has changed since it was read."""


class Contended(JobwireError):
    """Others changed the job again and again; a repeat may succeed."""


class Superseded(JobwireError):
    """A newer claim stream of the same worker id has opened. Final."""


class ResourceExhausted(JobwireError):
    """A limit was met."""


class TooLarge(ResourceExhausted):
    """A size limit: `metadata` holds `field`, `limit`, `size`."""


class TooManyStreams(ResourceExhausted):
    """This server holds no further stream for this caller."""


class TooManyCalls(ResourceExhausted):
    """Too much is in flight on this server."""


class StoreFull(ResourceExhausted):
    """No job can be created; claiming and settling still work."""


class Unauthenticated(JobwireError):
    """No token or certificate, or one that the server does not know."""


class PermissionDenied(JobwireError):
    """The caller's role does not include this call."""


class NotBuilt(JobwireError):
    """A field or call of the contract that this server cannot do yet."""


class Unavailable(JobwireError):
    """No answer could be had. The call may have taken effect."""


class StoreUnavailable(Unavailable):
    """The server is there, its store is not."""


class ServerDraining(Unavailable):
    """The server is going away: reconnect."""


class DeadlineExceeded(JobwireError):
    """No answer came in time. The call may have taken effect."""


class InternalError(JobwireError):
    """A bug in the server; `metadata["correlation_id"]` finds its log line."""


_UNKNOWN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
_SELF_INFLICTED: Final = frozenset({"ETAG_MISMATCH", "ILLEGAL_TRANSITION", "JOB_NOT_FOUND", "LEASE_LOST"})

_BY_REASON: Final[Mapping[str, type[JobwireError]]] = {
    "INVALID_FIELD": InvalidField,
    "REQUEST_ID_REUSED": RequestIdReused,
    "JOB_EXISTS": JobExists,
    "JOB_NOT_FOUND": JobNotFound,
    "QUEUE_NOT_FOUND": QueueNotFound,
    "WORKER_NOT_FOUND": WorkerNotFound,
    "ILLEGAL_TRANSITION": IllegalTransition,
    "LEASE_REQUIRED": LeaseRequired,
    "LEASE_LOST": LeaseLost,
    "ALREADY_SETTLED": AlreadySettled,
    "NOT_ACKNOWLEDGING": NotAcknowledging,
    "ETAG_MISMATCH": EtagMismatch,
    "CONTENDED": Contended,
    "SUPERSEDED": Superseded,
    "TOO_LARGE": TooLarge,
    "TOO_MANY_STREAMS": TooManyStreams,
    "TOO_MANY_CALLS": TooManyCalls,
    "STORE_FULL": StoreFull,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "NOT_BUILT": NotBuilt,
    "STORE_UNAVAILABLE": StoreUnavailable,
    "SERVER_DRAINING": ServerDraining,
    "INTERNAL": InternalError,
}

# For answers without a reason: from gRPC itself, a proxy, or a server that is not ours.
_BY_CODE: Final[Mapping[grpc.StatusCode, type[JobwireError]]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: NotBuilt,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: InternalError,
}

_CODES: Final = {int(code.value[0]): code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> JobwireError:
    """The exception for a failed call, sync or async."""
    call = cast(grpc.Call, error)  # both kinds of RpcError answer code(), details() and trailing_metadata()
    code = call.code()
    info, bad_request, retry_info = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in _details(call):
        for message in (info, bad_request, retry_info):
            if detail.TypeName() == message.DESCRIPTOR.full_name:
                detail.Unpack(message)
    reason = info.reason if info.domain == DOMAIN else _reason_trailer(call)
    return _class_for(reason, code)(
        call.details() or code.name,
        code=code,
        reason=reason or code.name,
        metadata=info.metadata,
        fields={violation.field: violation.description for violation in bad_request.field_violations},
        retry_after=retry_info.retry_delay.ToTimedelta().total_seconds()
        if retry_info.HasField("retry_delay")
        else None,
    )


def from_item_error(error: ItemError) -> JobwireError:
    """The exception for one refused item of a batch."""
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    field = error.metadata.get("field")
    return _class_for(error.reason, code)(
        error.message,
        code=code,
        reason=error.reason or code.name,
        metadata=error.metadata,
        fields={field: error.message} if field else None,
    )


def _class_for(reason: str, code: grpc.StatusCode) -> type[JobwireError]:
    return _BY_REASON.get(reason) or _BY_CODE.get(code) or JobwireError


def _details(call: grpc.Call) -> Iterator[Any]:
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):  # details that contradict the status: somebody on the way rewrote it
        return
    if status is not None:
        yield from status.details


def _reason_trailer(call: grpc.Call) -> str:
    for key, value in call.trailing_metadata() or ():
        if key == REASON_TRAILER:
            return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return ""
