"""The verb `workers`: the registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from jobwire_server.store.base import WorkerInfo, WorkerRecord, Workers
from jobwire_server.store.sqlite import codec
from jobwire_server.store.sqlite.transaction import Transaction

_SELECT: Final = """
SELECT id, session, host, pid, runtime, version, labels, queues, last_beat, held FROM worker
"""
_NAMED: Final = _SELECT + "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
_BEHIND: Final = _SELECT + "WHERE id > ? ORDER BY id LIMIT ?"


def workers(transaction: Transaction, ids: Sequence[str], after: str, limit: int) -> Workers:
    transaction.flush()
    if ids:
        found = transaction.execute(_NAMED, (json.dumps(list(ids)),))
    else:
        found = transaction.execute(_BEHIND, (after, limit))
    return Workers(transaction.now, [_record(row) for row in found])


def _record(row: Any) -> WorkerRecord:
    id, session, host, pid, runtime, version, labels, queues, last_beat, held = row
    info = WorkerInfo(
        id=id,
        session=session,
        host=host,
        pid=pid,
        runtime=runtime,
        version=version,
        labels=codec.decode_labels(labels),
        queues=codec.decode_queues(queues),
    )
    return WorkerRecord(info, last_beat, held)
