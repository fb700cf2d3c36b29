"""What can be wrong with a request, each with the reason a program can tell it by."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """`ErrorInfo.reason` on the wire. `rpc/status.py` maps each to its gRPC code."""

    INVALID_MESSAGE = "INVALID_MESSAGE"
    INVALID_FIELD = "INVALID_FIELD"
    JOB_EXISTS = "JOB_EXISTS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    QUEUE_NOT_FOUND = "QUEUE_NOT_FOUND"
    WORKER_NOT_FOUND = "WORKER_NOT_FOUND"
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    LEASE_REQUIRED = "LEASE_REQUIRED"
    LEASE_LOST = "LEASE_LOST"
    ALREADY_SETTLED = "ALREADY_SETTLED"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    CONTENDED = "CONTENDED"
    SUPERSEDED = "SUPERSEDED"
    NOT_ACKNOWLEDGING = "NOT_ACKNOWLEDGING"
    TOO_LARGE = "TOO_LARGE"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_FULL = "STORE_FULL"
    SERVER_DRAINING = "SERVER_DRAINING"
    NOT_BUILT = "NOT_BUILT"
    INTERNAL = "INTERNAL"


class JobwireError(Exception):
    """A refusal the caller can act on. `message` is shown to people; `metadata` is for programs."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        metadata: Mapping[str, str] | None = None,
        quoted: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        """Path of the field at fault, such as `job.retry_policy.jitter`."""
        self.retry_after = retry_after
        """Microseconds after which the same call may succeed; None where repeating it does not help."""
        self.quoted = quoted
        """Words of the caller's own, which it alone is told: what it sent has no place in a log."""
        self.metadata = {**({} if field is None else {"field": field}), **(metadata or {})}


def job_not_found(job_id: str) -> JobwireError:
    return JobwireError(Reason.JOB_NOT_FOUND, f"there is no job {job_id!r}", metadata={"job_id": job_id})


def queue_not_found(name: str) -> JobwireError:
    return JobwireError(Reason.QUEUE_NOT_FOUND, f"there is no queue {name!r}", metadata={"queue": name})


def worker_not_found(worker_id: str) -> JobwireError:
    return JobwireError(Reason.WORKER_NOT_FOUND, f"there is no worker {worker_id!r}", metadata={"worker_id": worker_id})


def invalid(field: str, message: str) -> JobwireError:
    return JobwireError(Reason.INVALID_FIELD, f"{field}: {message}", field=field)


def too_large(field: str, size: int, limit: int) -> JobwireError:
    return JobwireError(
        Reason.TOO_LARGE,
        f"{field} has {size} bytes, the limit is {limit}",
        field=field,
        metadata={"size": str(size), "limit": str(limit)},
    )
