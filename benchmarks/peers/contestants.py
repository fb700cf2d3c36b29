"""Who is compared, by what an OK of theirs means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from benchmarks.peers import engines
from benchmarks.peers.engines import Program
from benchmarks.peers.installing import Go, Node, Own, Python, Recipe

FSYNCED: Final = "fsynced"
SOON: Final = "fsynced within 2 s"
WRITTEN: Final = "written, never fsynced"
MEANINGS: Final = (FSYNCED, SOON, WRITTEN)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of bringing jobs through their lives."""

    name: str
    ok_means: str
    how: str
    """What it does in its driver, for the page."""

    recipe: Recipe
    engine: Callable[[], AbstractContextManager[str]]
    """Starts what it keeps its jobs in; yields the address for the driver."""

    engine_programs: Sequence[Program] = ()
    arguments: Sequence[str] = field(default=())
    """For its driver, after address and number of jobs."""

    share: float = 1.0
    """Of the jobs of a run, so that a slow one does not make all wait: a rate does not need as many."""

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("jobwire")


_STUBS: Final = Own("jobwire_stubs")
_WORKER: Final = Own("jobwire_worker")
_BY_STUBS: Final = "plain stubs, calls of 500"
_BY_WORKER: Final = "`create_many`, `Worker` of 2,000 at a time"
_REDIS: Final = (engines.REDIS,)
_POSTGRES: Final = (engines.INITDB, engines.POSTGRES, engines.PG_ISREADY)

CONTESTANTS: Final = (
    Contestant("jobwire-sqlite", FSYNCED, _BY_STUBS, _STUBS, partial(engines.jobwire, "sqlite")),
    Contestant("jobwire-sqlite-worker", FSYNCED, _BY_WORKER, _WORKER, partial(engines.jobwire, "sqlite"), share=0.5),
    Contestant("jobwire-redis-always", FSYNCED, _BY_STUBS, _STUBS, partial(engines.jobwire, "redis", "always"), _REDIS),
    Contestant(
        "river",
        FSYNCED,
        "PostgreSQL, `InsertManyFast` of 500, 2,000 workers",
        Go("river"),
        engines.postgres,
        _POSTGRES,
    ),
    Contestant(
        "beanstalkd-fsync",
        FSYNCED,
        "`-f 0`, one command at a time on each of 16 connections",
        Go("beanstalkd"),
        partial(engines.beanstalkd, 0),
        (engines.BEANSTALKD,),
        arguments=("16", "1"),
        share=0.1,
    ),
    Contestant("jobwire-redis", SOON, _BY_STUBS, _STUBS, partial(engines.jobwire, "redis"), _REDIS),
    Contestant("jobwire-redis-worker", SOON, _BY_WORKER, _WORKER, partial(engines.jobwire, "redis"), _REDIS, share=0.5),
    Contestant(
        "beanstalkd",
        SOON,
        "`-f 50`, 100 commands at a time on each of 2 connections, no results",
        Go("beanstalkd"),
        partial(engines.beanstalkd, 50),
        (engines.BEANSTALKD,),
        arguments=("2", "100"),
    ),
    Contestant("bullmq", SOON, "`addBulk` of 500, one Worker of 100 at a time", Node("bullmq"), engines.redis, _REDIS),
    Contestant("asynq", SOON, "32 producers, 100 workers, results kept", Go("asynq"), engines.redis, _REDIS),
    Contestant(
        "dramatiq",
        SOON,
        "2 processes of 8 threads, results in Redis",
        Python("dramatiq_peer", ("dramatiq[redis]==2.2.1", "hiredis==3.5.0")),
        engines.redis,
        _REDIS,
        share=0.2,
    ),
    Contestant(
        "celery",
        SOON,
        "2 processes, results in Redis",
        Python("celery_peer", ("celery[redis]==5.7.0", "hiredis==3.5.0")),
        engines.redis,
        _REDIS,
        share=0.05,
    ),
    Contestant(
        "arq",
        SOON,
        "32 producers, a worker of 100 at a time",
        Python("arq_peer", ("arq==0.28.0", "hiredis==3.5.0")),
        engines.redis,
        _REDIS,
        share=0.05,
    ),
    Contestant(
        "saq",
        SOON,
        "32 producers, a worker of 100 at a time",
        Python("saq_peer", ("saq[redis]==0.26.4", "hiredis==3.5.0", "typing_extensions==4.16.0")),
        engines.redis,
        _REDIS,
        share=0.05,
    ),
    Contestant(
        "rq",
        SOON,
        "`enqueue_many` of 500, 2 workers that do not fork",
        Python("rq_peer", ("rq==3.0.0", "hiredis==3.5.0")),
        engines.redis,
        _REDIS,
        share=0.05,
    ),
    Contestant(
        "faktory",
        WRITTEN,
        "`PUSHB` of 100 by 32 producers, 32 workers, no results",
        Go("faktory"),
        engines.faktory,
        (engines.FAKTORY, engines.REDIS),
    ),
)
