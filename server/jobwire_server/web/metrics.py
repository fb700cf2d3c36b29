"""`GET /metrics`: what this server has counted, and what its store knows of the jobs, for Prometheus."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jobwire_server.domain.activity import Event
from jobwire_server.domain.job import SECOND, JobState
from jobwire_server.domain.worker import WorkerState
from jobwire_server.service.stats import QueueStats, StatsService
from jobwire_server.store.base import Store, StoreFull, StoreUnavailable
from jobwire_server.telemetry.metrics import Registry, heading, sample

NAMED: Final = 100
"""Queues with series of their own, the first by name; those of all others are added up. A label is for ever: whoever
makes a queue for each customer would fill the memory of Prometheus."""
REST: Final = "(others)"
"""Stands for those; no name of a queue has brackets."""

_PATIENCE: Final = 5.0
"""Seconds for the store; Prometheus waits ten."""
_STARTED: Final = time.time()


class Exposition:
    """The endpoint."""

    def __init__(self, metrics: Registry, store: Store, stats: StatsService, *, is_alone: bool) -> None:
        """`is_alone`: no other process answers on this port."""
        self._metrics = metrics
        self._store = store
        self._stats = stats
        self._is_alone = is_alone

    async def endpoint(self, _: Request) -> Response:
        """Answers without the store as well: `jobwire_store_up` is what tells of that."""
        lines = [*self._metrics.lines()]
        try:
            async with asyncio.timeout(_PATIENCE):
                lines += await self._of_store()
                is_up = True
        except (StoreUnavailable, StoreFull, TimeoutError):
            is_up = False
        lines += _family("jobwire_store_up", "gauge", "Whether the store answers.", [({}, float(is_up))])
        if self._is_alone:
            lines += _process_lines()
        return Response("\n".join([*lines, ""]), media_type="text/plain; version=0.0.4")

    async def _of_store(self) -> list[str]:
        info = await self._store.info()
        stats = await self._stats.read()
        kind = {"kind": info.kind, "engine": info.engine, "durability": info.durability}
        return [
            *_family("jobwire_store_info", "gauge", "What the store is.", [(kind, 1.0)]),
            *_family("jobwire_queues", "gauge", "Queues that there are.", [({}, float(len(stats.queues)))]),
            *_queue_lines(stats.queues),
            *_family(
                "jobwire_workers",
                "gauge",
                "Workers of the registry, by what they are up to.",
                [({"state": state}, float(stats.workers.get(state, 0))) for state in WorkerState],
            ),
        ]


def _queue_lines(queues: Sequence[QueueStats]) -> Iterator[str]:
    named, others = queues[:NAMED], queues[NAMED:]
    groups = [(queue.name, [queue]) for queue in named] + ([(REST, others)] if others else [])

    def each(value: Callable[[Sequence[QueueStats]], float]) -> Iterator[tuple[dict[str, str], float]]:
        return (({"queue": name}, value(group)) for name, group in groups)

    yield from _family(
        "jobwire_jobs",
        "gauge",
        "Jobs by queue and state.",
        [
            ({"queue": name, "state": state}, float(sum(queue.counts.get(state, 0) for queue in group)))
            for name, group in groups
            for state in JobState
        ],
    )
    yield from _family(
        "jobwire_queue_oldest_waiting_seconds",
        "gauge",
        "How long the job has waited that is next to be claimed; 0 where nobody waits.",
        each(lambda group: max(queue.oldest_waiting_age or 0 for queue in group) / SECOND),
    )
    yield from _family(
        "jobwire_queue_paused",
        "gauge",
        "Queues from which nothing is claimed.",
        each(lambda group: float(sum(queue.paused for queue in group))),
    )
    for event, about in _EVENTS.items():
        yield from _family(
            f"jobwire_jobs_{event}_total",
            "counter",
            about,
            each(partial(_counted, event)),
        )
    yield from _family(
        "jobwire_jobs_run_seconds_total",
        "counter",
        "How long all attempts ran that completed.",
        each(lambda group: sum(queue.tally.run_time for queue in group) / SECOND),
    )


def _counted(event: Event, group: Sequence[QueueStats]) -> float:
    return float(sum(getattr(queue.tally, event) for queue in group))


_EVENTS: Final = {
    Event.CREATED: "Jobs that were created.",
    Event.CLAIMED: "Claims, later attempts and deliveries that came back included.",
    Event.COMPLETED: "Jobs that became COMPLETED.",
    Event.FAILED: "Jobs that became FAILED: dead letters.",
    Event.RETRIED: "Attempts that cost a retry, and will be followed by another.",
    Event.INTERRUPTED: "Leases that were lost: they ended without a word from the worker.",
}


def _process_lines() -> Iterator[str]:
    """Under the names that each client of Prometheus uses."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    yield from _family("process_cpu_seconds_total", "counter", "CPU time used.", [({}, cpu)])
    yield from _family("process_start_time_seconds", "gauge", "When it started, since 1970.", [({}, _STARTED)])
    own = Path("/proc/self")
    if own.exists():  # Linux
        resident = int((own / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        yield from _family("process_resident_memory_bytes", "gauge", "Memory in use.", [({}, float(resident))])
        open_files = float(len(list((own / "fd").iterdir())))
        yield from _family("process_open_fds", "gauge", "Open files and connections.", [({}, open_files)])


def _family(name: str, kind: str, about: str, samples: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
    yield from heading(name, kind, about)
    for labels, value in samples:
        yield sample(name, labels, value)
