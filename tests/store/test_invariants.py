"""Each invariant is seen to be broken when it is: by one plant in a dump, and by some in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.store import invariants
from tests.store.invariants import CHECKS, Dump, Row, findings
from tests.store.making import Clock, put

from jobwire_server.domain.job import JobState
from jobwire_server.store.sqlite.store import SqliteStore


def row(id: str, state: JobState, score: int, **others: Any) -> Row:
    values: dict[str, Any] = dict.fromkeys(Row.__slots__)
    values |= {"queue": "q", "version": 2, "revision": 1, "user_id": "", "create_time": 1, "attempt": 0, "fence": 0}
    values |= {"worker_id": "", "acknowledged": False, "history": ()}
    return Row(**{**values, "id": id, "state": state, "score": score, **others})


LEASE: dict[str, Any] = {
    "token": "aa",
    "worker_id": "w",
    "claim_time": 4,
    "lease_expire_time": 9,
    "fence": 4,
    "queue_time": 2,
}

SOUND = Dump(
    jobs={
        "s": row("s", JobState.SCHEDULED, 7, schedule_time=7, expire_time=8),
        "q": row("q", JobState.QUEUED, 3, queue_time=3, user_id="u"),
        "l": row("l", JobState.IN_PROGRESS, 9, **LEASE),
        "e": row("e", JobState.COMPLETED, 20, finish_time=10, history=((1, "bb"), (2, ""), (3, ""))),
    },
    places={
        "state": {"q:scheduled": {"s": 7}, "q:queued": {"q": 3}, "q:in_progress": {"l": 9}, "q:completed": {"e": 20}},
        "expiry": {"": {"s": 8}},
        "lease": {"w": {"l": 4}},
        "user": {"u": {"q": 1}},
    },
    counts={("q", JobState(state)): 1 for state in ("scheduled", "queued", "in_progress", "completed")},
    beside={"result": frozenset({"e"})},
    queues={"q": 3},
    workers=frozenset({"w"}),
    complaints=(),
)


def job(id: str, **changes: Any) -> Dump:
    return replace(SOUND, jobs={**SOUND.jobs, id: replace(SOUND.jobs[id], **changes)})


def place(kind: str, index: str, members: dict[str, int]) -> Dump:
    return replace(SOUND, places={**SOUND.places, kind: {**SOUND.places[kind], index: members}})


BROKEN = {
    "a job is not in its index": [
        place("state", "q:queued", {}),
        place("expiry", "", {}),
        place("lease", "w", {}),
        place("user", "u", {}),
        place("state", "q:queued", {"q": 4}),
    ],
    "a job is in an index of others": [place("state", "q:failed", {"q": 3}), place("expiry", "", {"s": 8, "q": 3})],
    "an index names no job": [place("lease", "x", {"gone": 1})],
    "a count is not the count": [replace(SOUND, counts={})],
    "something beside no job": [replace(SOUND, beside={"result": frozenset({"gone"})})],
    "a queue that is not listed": [replace(SOUND, queues={})],
    "a queue's last time is not the last": [replace(SOUND, queues={"q": 2})],
    "a queue_time twice": [job("l", queue_time=3)],
    "a worker that holds leases is unknown": [replace(SOUND, workers=frozenset())],
    "a token twice": [replace(SOUND, jobs={**SOUND.jobs, "l2": row("l2", JobState.IN_PROGRESS, 9, **LEASE)})],
    "a history that is none": [job("e", history=((2, ""), (1, ""))), job("e", history=((1, "b"), (2, "b")))],
    "a lease without its parts": [job("l", **{part: None}) for part in LEASE if part != "queue_time"]
    + [job("l", limit_time=8)],
    "a lease of nobody": [job("q", acknowledged=True), job("e", lease_expire_time=1)],
    "a queued job without a queue_time": [job("q", queue_time=None)],
    "a scheduled job that is not due when it says": [job("s", schedule_time=6)],
    "an ended job without a finish_time": [job("e", finish_time=None), job("e", finish_time=21)],
    "a version that was never given": [job("q", version=0), job("q", revision=3)],
}


def test_a_sound_dump_has_no_findings() -> None:
    assert findings(SOUND) == []


def test_every_invariant_has_its_plant() -> None:
    assert BROKEN.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", BROKEN)
def test_the_invariant_is_seen_broken(name: str) -> None:
    for dump in BROKEN[name]:
        assert [found for found in findings(dump) if found.startswith(f"{name}: ")], dump


SQLITE = {
    "a count is not the count": "UPDATE queue_count SET n = n + 1",
    "something beside no job: submission of number 99": "INSERT INTO submission VALUES (99, x'00')",
    "a lease without its parts: l": "UPDATE job SET token = NULL WHERE id = 'l'",
    "a job that cannot be read: q": "UPDATE job SET user_id = CAST(x'c328' AS TEXT) WHERE id = 'q'",
    "a worker that holds leases is unknown: w": "DELETE FROM worker",
    "a queue that is not listed": "DELETE FROM queue",
}


@pytest.mark.parametrize("name", SQLITE)
async def test_a_plant_in_a_file_is_found(tmp_path: Path, clock: Clock, name: str) -> None:
    store = SqliteStore(str(tmp_path / "jobs.db"), clock=clock)
    await store.open()
    await put(store, "l", JobState.IN_PROGRESS)
    await put(store, "q", submission=b"x")
    assert await invariants.broken(store) == []
    await store._write(lambda transaction: transaction.execute(SQLITE[name]))
    assert [found for found in await invariants.broken(store) if found.startswith(name)]
    await store.close()
