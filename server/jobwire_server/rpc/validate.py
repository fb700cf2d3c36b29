"""What a value of a request must be like, field by field; each refusal names the field by its path in the request.

Refusals never repeat the value: what a caller sent must not come back in errors or logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1 import job_pb2
from jobwire_server.domain.change import TOKEN_SIZE, token_digest
from jobwire_server.domain.errors import JobwireError, Reason, invalid, too_large
from jobwire_server.domain.job import DAY, SECOND, RetryPolicy
from jobwire_server.domain.limits import JOB_ID, NAME, Limits
from jobwire_server.domain.webhook import RESERVED, is_reserved

MAX_RETRIES: Final = 1000
MAX_MULTIPLIER: Final = 100.0
CONTENT_TYPE_SIZE: Final = 128

_ETAG: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def text(path: str, value: str, limit: int) -> str:
    """Any Unicode but NUL, at most `limit` bytes of it."""
    if not value:
        return value
    if "\0" in value:
        raise invalid(path, "must not hold a NUL character")
    # A character has at most four bytes: short text needs no encoding to be measured.
    if len(value) * 4 > limit and (size := len(value.encode())) > limit:
        raise too_large(path, size, limit)
    return value


_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(path: str, value: str) -> None:
    """As W3C Trace Context writes it."""
    if not _TRACEPARENT.fullmatch(value):
        raise invalid(path, f"must match {_TRACEPARENT.pattern}")


def job_id(path: str, value: str) -> str:
    if not JOB_ID.fullmatch(value):
        raise invalid(path, f"must match {JOB_ID.pattern}" if value else "is required")
    return value


def name(path: str, value: str) -> str:
    """The name of a queue or a worker."""
    if not NAME.fullmatch(value):
        raise invalid(path, f"must match {NAME.pattern}" if value else "is required")
    return value


def free_name(path: str, value: str) -> str:
    """A name that a caller may use as their own."""
    if is_reserved(name(path, value)):
        raise invalid(path, f"names that begin with {RESERVED!r} are the server's own")
    return value


def token(path: str, value: str) -> bytes:
    """The digest of a lease token given as hex: what the store knows it by."""
    if not value:
        raise JobwireError(Reason.LEASE_REQUIRED, f"{path}: only the holder of the lease may do this", field=path)
    try:
        raw = bytes.fromhex(value)
    except ValueError:
        raw = b""
    if len(raw) != TOKEN_SIZE or raw.hex() != value:
        raise invalid(path, "must be 32 lower-case hexadecimal characters")
    return token_digest(raw)


def etag(path: str, value: str) -> str | None:
    """None when empty: any version will do."""
    if value and not _ETAG.fullmatch(value):
        raise invalid(path, "is no etag of this server")
    return value or None


def items(path: str, given: Sequence[object], limit: int) -> None:
    """The length of a batch."""
    if not 1 <= len(given) <= limit:
        raise invalid(path, f"must hold 1 to {limit} items, not {len(given)}")


def whole(path: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise invalid(path, f"must be from {low} to {high}")
    return value


def real(path: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:  # also true of NaN
        raise invalid(path, f"must be from {low:g} to {high:g}")
    return value


def duration(path: str, value: Duration, low: int, high: int) -> int:
    """Microseconds; finer digits are cut off."""
    if not -999_999_999 <= value.nanos <= 999_999_999 or value.seconds * value.nanos < 0:
        raise invalid(path, "is not a valid duration")
    if value.seconds < 0 or value.nanos < 0:
        raise invalid(path, "must not be negative")
    micros = value.seconds * SECOND + value.nanos // 1000
    if not low <= micros <= high:
        raise invalid(path, f"must be from {spell(low)} to {spell(high)}")
    return micros


def timestamp(path: str, value: Timestamp, latest: int) -> int:
    """Microseconds since 1970; finer digits are cut off."""
    if not 0 <= value.nanos <= 999_999_999:
        raise invalid(path, "is not a valid timestamp")
    if value.seconds < 0:
        raise invalid(path, "must not lie before 1970")
    micros = value.seconds * SECOND + value.nanos // 1000
    if micros > latest:
        raise invalid(path, "lies too far in the future")
    return micros


def spell(micros: int) -> str:
    """A duration as people write it."""
    for unit, word in ((DAY, "d"), (SECOND, "s"), (1000, "ms")):
        if micros >= unit and micros % unit == 0:
            return f"{micros // unit} {word}"
    return f"{micros} µs" if micros else "0"


def labels(path: str, given: Mapping[str, str], limits: Limits) -> tuple[tuple[str, str], ...]:
    """By key. Keys are user text, so that a refusal names the whole map."""
    if not given:
        return ()
    if len(given) > limits.labels:
        raise JobwireError(
            Reason.TOO_LARGE,
            f"{path} has {len(given)} labels, the limit is {limits.labels}",
            field=path,
            metadata={"field": path, "size": str(len(given)), "limit": str(limits.labels)},
        )
    for key, value in given.items():
        if not key:
            raise invalid(path, "has an empty key")
        _no_nul(path, (key, value))
        if (size := _size((key, value))) > limits.label_size:
            raise JobwireError(
                Reason.TOO_LARGE,
                f"{path}: one label has {size} bytes, the limit is {limits.label_size}",
                field=path,
                metadata={"field": path, "size": str(size), "limit": str(limits.label_size)},
            )
    return tuple(sorted(given.items()))


def payload(path: str, given: job_pb2.Payload, limits: Limits) -> job_pb2.Payload:
    if given.content_type:
        text(f"{path}.content_type", given.content_type, CONTENT_TYPE_SIZE)
    if len(given.data) > limits.payload:
        raise too_large(f"{path}.data", len(given.data), limits.payload)
    if given.text:
        text(f"{path}.text", given.text, limits.payload)
    return given


def http(path: str, given: job_pb2.HttpRequest, limits: Limits) -> job_pb2.HttpRequest:
    size = 0
    for kind, values in (("headers", given.headers), ("query_params", given.query_params)):
        for i, entry in enumerate(values):
            here = f"{path}.{kind}[{i}]"
            if not entry.name:
                raise invalid(f"{here}.name", "is required")
            _no_nul(f"{here}.name", (entry.name,))
            texts = [value.value for value in entry.values]
            _no_nul(f"{here}.values", texts)
            # A byte for each value besides its text: a million missing values are not nothing.
            size += _size((entry.name, *texts)) + len(texts)
    for key, value in given.route_params.items():
        if not key:
            raise invalid(f"{path}.route_params", "has an empty name")
        _no_nul(f"{path}.route_params", (key, value))
        size += _size((key, value))
    if size > limits.headers:
        raise too_large(path, size, limits.headers)
    return given


def retry_policy(path: str, given: job_pb2.RetryPolicy, limits: Limits) -> RetryPolicy:
    """With the default in place of each absent field."""
    policy = RetryPolicy()
    return RetryPolicy(
        max_retries=(
            whole(f"{path}.max_retries", given.max_retries, 0, MAX_RETRIES)
            if given.HasField("max_retries")
            else policy.max_retries
        ),
        initial_delay=(
            duration(f"{path}.initial_delay", given.initial_delay, 0, limits.max_delay)
            if given.HasField("initial_delay")
            else policy.initial_delay
        ),
        multiplier=(
            real(f"{path}.multiplier", given.multiplier, 1.0, MAX_MULTIPLIER)
            if given.HasField("multiplier")
            else policy.multiplier
        ),
        max_delay=(
            duration(f"{path}.max_delay", given.max_delay, 0, limits.max_delay)
            if given.HasField("max_delay")
            else policy.max_delay
        ),
        jitter=real(f"{path}.jitter", given.jitter, 0.0, 1.0) if given.HasField("jitter") else policy.jitter,
        max_interruptions=(
            whole(f"{path}.max_interruptions", given.max_interruptions, 0, MAX_RETRIES)
            if given.HasField("max_interruptions")
            else policy.max_interruptions
        ),
    )


def cut(value: str, limit: int) -> str:
    """At most `limit` bytes from the start, whole characters; NUL shown as ␀. For text that must not be refused."""
    value = value.replace("\0", "␀")
    if len(value) * 4 <= limit:
        return value
    return value.encode()[: max(limit, 0)].decode(errors="ignore")


def _no_nul(path: str, values: Iterable[str]) -> None:
    if any("\0" in value for value in values):
        raise invalid(path, "must not hold a NUL character")


def _size(values: Iterable[str]) -> int:
    return sum(len(value.encode()) for value in values)
