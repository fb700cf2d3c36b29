"""The kinds of jobs, and how each has to end. What their handlers do stands in worker.py."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from jobwire_client import Job, RetryPolicy, new_job


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of job."""

    type: str
    ends: str
    """The state in which each of them has to end."""
    share: int
    """Of all jobs, beside the others' shares."""


ENDLESS = Kind("endless", "CANCELED", 0)
"""Takes a slot of a worker until it is cancelled, so there are few of them."""

KINDS = (
    Kind("resize", "COMPLETED", 28),
    Kind("email", "COMPLETED", 22),
    Kind("report", "COMPLETED", 8),
    Kind("later", "COMPLETED", 8),
    Kind("flaky", "COMPLETED", 12),
    Kind("busy", "COMPLETED", 4),
    Kind("broken", "FAILED", 5),
    Kind("hopeless", "FAILED", 4),
    Kind("unwanted", "CANCELED", 5),
    ENDLESS,
    Kind("missed", "EXPIRED", 4),
)

ENDS = {kind.type: kind.ends for kind in KINDS}

QUICK = RetryPolicy(max_retries=2, initial_delay=Duration(nanos=300_000_000), max_delay=Duration(seconds=1))
"""So that nobody has to watch a backoff."""


@dataclass(frozen=True, slots=True)
class Queues:
    """Where the demo's jobs wait."""

    main: str
    nobody: str
    """No worker claims from it: what is put there never starts."""


def mixed_types(count: int, endless: int) -> list[str]:
    """So many types of jobs, in no order."""
    types = random.choices([kind.type for kind in KINDS], [kind.share for kind in KINDS], k=count - endless)
    types += [ENDLESS.type] * endless
    random.shuffle(types)
    return types


def make_job(type: str, queues: Queues) -> Job:
    """To be created now; of any priority."""
    now = datetime.now(UTC)
    priority = random.randint(1, 10)
    match type:
        case "flaky":
            work = {"succeeds_at": random.randint(2, 3)}
            return new_job(type, work, queue=queues.main, priority=priority, retry_policy=QUICK)
        case "hopeless":
            return new_job(type, queue=queues.main, priority=priority, retry_policy=QUICK)
        case "later":
            due = now + timedelta(seconds=random.uniform(1, 4))
            return new_job(type, queue=queues.main, priority=priority, schedule_time=due)
        case "unwanted":
            return new_job(type, queue=queues.main, schedule_time=now + timedelta(hours=1))
        case "missed":
            return new_job(type, queue=queues.nobody, expire_time=now + timedelta(seconds=random.uniform(3, 6)))
        case _:
            return new_job(type, queue=queues.main, priority=priority)
