"""Python values to messages and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1.job_pb2 import Payload

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
Body: TypeAlias = "Payload | bytes | JsonValue"
"""What a payload or a result may be given as."""


def fill_payload(payload: Payload, body: Body) -> None:
    """Bytes and str go as they are, anything else as JSON. TypeError, ValueError when JSON cannot say it."""
    if isinstance(body, str):
        payload.content_type = "text/plain"
        payload.text = body
    elif isinstance(body, bytes):
        payload.content_type = "application/octet-stream"
        payload.data = body
    elif isinstance(body, Payload):
        payload.CopyFrom(body)
    else:
        payload.content_type = "application/json"
        payload.text = json.dumps(body, allow_nan=False)


def to_payload(body: Body) -> Payload | None:
    """None is no payload."""
    if body is None or isinstance(body, Payload):
        return body
    payload = Payload()
    fill_payload(payload, body)
    return payload


def payload_bytes(payload: Payload) -> bytes:
    """The body, text as UTF-8."""
    return payload.text.encode() if payload.WhichOneof("body") == "text" else payload.data


def to_duration(seconds: float | timedelta) -> Duration:
    """To the microsecond."""
    duration = Duration()
    duration.FromTimedelta(seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds))
    return duration


def to_timestamp(time: datetime) -> Timestamp:
    """ValueError for a time without a zone: nobody can tell when that is."""
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(time.astimezone(UTC))
    return timestamp


def clean_text(text: str, limit: int) -> str:
    """The same text as the contract takes it: UTF-8, no NUL, cut to `limit` bytes. A failure must not get lost for its
    spelling."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
