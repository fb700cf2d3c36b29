"""What a watch tells."""

from __future__ import annotations

from dataclasses import dataclass

from jobwire_server.domain.job import Job


@dataclass(frozen=True, slots=True)
class SnapshotStarted:
    """What was told before may be out of date: the whole follows."""


@dataclass(frozen=True, slots=True)
class JobsChanged:
    """Jobs, each as it is now."""

    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class JobsRemoved:
    """Ids of jobs that are not to be seen any more."""

    job_ids: list[str]


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    """The snapshot is whole. `now` is the store's time of it."""

    now: int


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Nothing has changed. All that did before `now`, by the store's clock, has been told."""

    now: int


Event = SnapshotStarted | JobsChanged | JobsRemoved | SnapshotDone | KeepAlive
