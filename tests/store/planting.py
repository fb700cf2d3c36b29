"""Writing into a job's record in Redis by hand, as a fault would."""

from __future__ import annotations

import json
from typing import Any


def record_of(client: Any, tag: str, id: str) -> dict[str, Any]:
    """Its fields; bytes that are no UTF-8 come escaped, and are written again as they were."""
    fields: dict[str, Any] = json.loads(client.get(f"{tag}:job:{id}").decode(errors="surrogateescape"))
    return fields


def write_record(client: Any, tag: str, id: str, fields: dict[str, Any]) -> None:
    client.set(f"{tag}:job:{id}", json.dumps(fields, ensure_ascii=False).encode(errors="surrogateescape"))


def set_field(client: Any, tag: str, id: str, name: str, value: str | bytes) -> None:
    text = value if isinstance(value, str) else value.decode(errors="surrogateescape")
    write_record(client, tag, id, record_of(client, tag, id) | {name: text})


def drop_field(client: Any, tag: str, id: str, name: str) -> None:
    fields = record_of(client, tag, id)
    fields.pop(name, None)
    write_record(client, tag, id, fields)
