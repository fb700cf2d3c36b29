"""The order of a queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypedDict

from jobwire_server.domain.job import DAY, MINUTE

DEFAULT_AGEING: Final = MINUTE
MAX_AGEING: Final = DAY
MIN_PRIORITY: Final = 1
MAX_PRIORITY: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue's settings. A queue exists from its first job or first setting on."""

    name: str
    paused: bool = False
    ageing: int = DEFAULT_AGEING
    """What one level of priority is worth in waiting time; 0 = first come, first served, whatever the priority."""
    retention: int | None = None
    """How long its ended jobs stay when they do not say themselves; None = the default of their state."""
    max_in_flight: int | None = None
    """Ceiling on its jobs IN_PROGRESS at a time; None = no ceiling."""
    create_time: int = 0
    update_time: int = 0
    """When a setting last changed; `create_time` when none ever did."""
    revision: int = 0
    """How often its settings were changed. The wire calls it etag."""

    @property
    def etag(self) -> str:
        return str(self.revision)


class QueueChanges(TypedDict, total=False):
    """Settings of a Queue to be changed, by their name in `Queue`. What is not named stays."""

    paused: bool
    ageing: int
    retention: int | None
    max_in_flight: int | None


FORGOTTEN_AFTER: Final = DAY
"""A queue without jobs whose settings nobody ever changed is forgotten so long after its last job entered it: names
made up for each customer or each day must not pile up."""


def next_queue_time(now: int, last: int) -> int:
    """When a job enters its queue: now, but always after whoever entered before, whatever the clock does."""
    return max(now, last + 1)


def rank(queue_time: int, priority: int, ageing: int) -> int:
    """The place in the queue, lowest first. A level of priority is worth `ageing` of waiting, so nothing starves."""
    return queue_time + (priority - MIN_PRIORITY) * ageing
