"""Tapes: lists of steps that a model and a store play side by side.

A step names what it means: `Decide("fail", "a", read=1)` is to fail job a as it stood one reading ago. So a printed
tape can be read, shortened by hand and played again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from jobwire_server.domain.job import SECOND

LEASE: Final = 30 * SECOND
DELIVERY: Final = 10 * SECOND


@dataclass(frozen=True, slots=True, repr=False)
class Step:
    """It shows what it says, and not what goes without saying."""

    def __repr__(self) -> str:
        said = [(each, getattr(self, each.name)) for each in fields(self)]
        return f"{type(self).__name__}({', '.join(f'{e.name}={value!r}' for e, value in said if value != e.default)})"


@dataclass(frozen=True, slots=True, repr=False)
class New(Step):
    id: str
    queue: str = "q"
    priority: int = 5
    due_in: int | None = None
    expires_in: int | None = None
    timeout: int | None = None
    retention: int | None = None
    retries: int = 3
    """And interruptions, at most."""
    user: str = ""
    content: int = 0
    """Of the request: the same number is the same request."""
    key: str = ""
    """The request id."""
    is_id_given: bool = True
    webhook: int = 0
    """The ends of which somebody is to be told."""


@dataclass(frozen=True, slots=True, repr=False)
class Create(Step):
    jobs: tuple[New, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Wish(Step):
    worker: str
    number: int = 1
    session: int = 0
    """So many above the highest that the store has."""
    credit: int = 2
    lease: int = LEASE
    delivery: int = DELIVERY


@dataclass(frozen=True, slots=True, repr=False)
class Claim(Step):
    wishes: tuple[Wish, ...]
    queue: str = "q"


@dataclass(frozen=True, slots=True, repr=False)
class Decide(Step):
    """A Move that domain.policy makes."""

    what: str
    """A key of DECISIONS."""
    id: str
    read: int = 0
    """From what: 0 = as the job was last seen, 1 = as it was before that, …"""
    brings_word: bool = True
    """Where the job wants one."""


@dataclass(frozen=True, slots=True, repr=False)
class Again(Step):
    """A Move that was sent before, with its operation."""

    back: int = 1
    """1 = the last one."""


@dataclass(frozen=True, slots=True, repr=False)
class Moves(Step):
    moves: tuple[Decide | Again, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Sign(Step):
    """Of life, for one lease."""

    id: str
    read: int = 0
    fraction: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Renew(Step):
    signs: tuple[Sign, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Beat(Step):
    worker: str
    session: int | None = None
    """As in Wish; None = a Heartbeat."""
    host: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Seen(Step):
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Direct(Step):
    worker: str
    directive: str


@dataclass(frozen=True, slots=True, repr=False)
class Remove(Step):
    id: str
    read: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Delete(Step):
    jobs: tuple[Remove, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Sweep(Step):
    verb: str
    """`promote` or `purge`."""
    bite: int = 1000
    """Called again and again with this limit, until there is nothing left to do."""


@dataclass(frozen=True, slots=True, repr=False)
class Overdue(Step):
    queues: tuple[str, ...] = ()
    limit: int = 1000


@dataclass(frozen=True, slots=True, repr=False)
class Leased(Step):
    queues: tuple[str, ...] = ()
    longer_than: int = 0
    limit: int = 1000


@dataclass(frozen=True, slots=True, repr=False)
class PutQueue(Step):
    name: str
    what: str
    """A key of SETTINGS."""
    revision: int | None = None
    """So many above the one it has."""
    create: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Names(Step):
    """The records of those queues or workers, or of all, page by page."""

    verb: str
    """`queues` or `workers`."""
    names: tuple[str, ...] = ()
    bite: int = 1000
    jobs: int = 0
    """Of workers: the ids of so many of the jobs that each holds."""


@dataclass(frozen=True, slots=True, repr=False)
class Find(Step):
    """Page by page to the end."""

    queues: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    user: str = ""
    types: tuple[str, ...] = ()
    created_from: int | None = None
    """Microseconds ago, as is `created_before`."""
    created_before: int | None = None
    bite: int = 1000
    behind: tuple[str, int] | None = None
    """A job's id, and a reading of it as in Decide: from where it stood then."""
    is_count: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Wait(Step):
    time: int
    """Microseconds; the clock may go back."""


@dataclass(frozen=True, slots=True, repr=False)
class Outage(Step):
    """The store is just back from one."""
