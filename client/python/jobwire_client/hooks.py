"""What a worker tells those who measure it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import UpdateJobResponse
from jobwire_client.context import JobContext
from jobwire_client.errors import JobwireError

T = TypeVar("T")

log = logging.getLogger("jobwire.worker")


@dataclass(frozen=True, slots=True)
class Ended:
    """How one run of a handler ended; the server does not know of it yet."""

    job: Job
    """As it was claimed."""
    fence: int
    verb: str
    """`complete`, `fail` or `release`, which is what will be reported, or `lost`: nothing will be."""
    seconds: float
    """From its start."""
    error: BaseException | None
    """What it raised, if that counts as a failure."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How one run ended, as the server answered."""

    job: Job
    """As it was claimed."""
    fence: int
    verb: str
    """`complete`, `fail` or `release`."""
    answer: UpdateJobResponse | JobwireError


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called in the event loop; they must not block. One that raises harms nobody."""

    on_start: Callable[[JobContext], None] | None = None
    on_end: Callable[[Ended], None] | None = None
    on_settled: Callable[[Settled], None] | None = None


def tell(hook: Callable[[T], None] | None, news: T, job: Job) -> None:
    """Calls the hook, if there is one."""
    if hook is None:
        return
    try:
        hook(news)
    except Exception:
        log.exception("a hook of the worker failed for job %s", job.id)
