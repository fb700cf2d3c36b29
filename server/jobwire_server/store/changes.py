"""What a store tells those who watch jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from jobwire_server.domain.job import Job


class Gone(NamedTuple):
    """A job that is there no longer: all that a filter can still ask of it."""

    id: str
    queue: str
    type: str
    user_id: str
    create_time: int


class Born(NamedTuple):
    """New jobs, with what never changes of a job and tells most watches that it is none of theirs."""

    queue: str
    user_id: str
    job_ids: Sequence[str]


class Changes(NamedTuple):
    """What one call of a verb did to jobs. Ids: whoever wants the jobs reads them, whatever they weigh."""

    changed: Sequence[str] = ()
    """Jobs whose version has risen, new ones too. Some may have gone since; one only renewed may be among them."""
    born: Sequence[Born] = ()
    """Of those, the new ones."""
    rewritten: Collection[str] = ()
    """Of those, whose submission was edited: they may match other filters than before."""
    gone: Sequence[Gone] = ()
    last: Sequence[Job] = ()
    """Of those gone, which went at their end (retention 0): as they ended."""
    is_gap: bool = False
    """Changes before this one were missed, and nobody knows which."""
