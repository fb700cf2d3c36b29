"""Statistics on the wire."""

from __future__ import annotations

from typing import Final

from jobwire.v1 import admin_service_pb2
from jobwire_server.domain.activity import Tally
from jobwire_server.domain.errors import invalid
from jobwire_server.domain.job import HOUR, MINUTE, SECOND
from jobwire_server.domain.limits import Limits
from jobwire_server.domain.worker import WorkerState
from jobwire_server.rpc import validate
from jobwire_server.rpc.answers import set_duration, set_time
from jobwire_server.rpc.queues import state_counts
from jobwire_server.service.stats import QueueStats, Stats

QUEUES_TOLD: Final = 1_000
"""The first of them by name; the totals hold all."""

SHORTEST_INTERVAL: Final = SECOND // 10


def stats_message(stats: Stats) -> admin_service_pb2.Stats:
    message = admin_service_pb2.Stats(
        queues=[_queue_message(queue, stats.windows) for queue in stats.queues[:QUEUES_TOLD]],
        totals=_queue_message(stats.totals, stats.windows),
        workers=admin_service_pb2.WorkerCounts(
            **{f"{state.value}_count": stats.workers.get(state, 0) for state in WorkerState}
        ),
        minutes=[_activity(tally, MINUTE) for tally in stats.minutes],
    )
    set_time(message.server_time, stats.now)
    return message


def _queue_message(queue: QueueStats, windows: tuple[int, ...]) -> admin_service_pb2.QueueStats:
    message = admin_service_pb2.QueueStats(
        queue=queue.name,
        counts=state_counts(queue.counts),
        paused=queue.paused,
        activity=[_activity(tally, window) for tally, window in zip(queue.lately, windows, strict=True)],
        completed_total=queue.tally.completed,
        failed_total=queue.tally.failed,
        worker_count=queue.worker_count,
    )
    if queue.oldest_waiting_age is not None:
        set_duration(message.oldest_waiting_age, queue.oldest_waiting_age)
    return message


def _activity(tally: Tally, window: int) -> admin_service_pb2.Activity:
    message = admin_service_pb2.Activity(
        created_count=tally.created,
        claimed_count=tally.claimed,
        completed_count=tally.completed,
        failed_count=tally.failed,
        retried_count=tally.retried,
        interrupted_count=tally.interrupted,
    )
    set_duration(message.window, window)
    if tally.completed:
        set_duration(message.average_run_time, tally.run_time // tally.completed)
    return message


def queues_asked(
    request: admin_service_pb2.GetStatsRequest | admin_service_pb2.WatchStatsRequest, limits: Limits
) -> list[str]:
    if len(request.queues) > limits.batch:
        raise invalid("queues", f"must hold at most {limits.batch} names")
    return [validate.name(f"queues[{i}]", name) for i, name in enumerate(request.queues)]


def interval_asked(request: admin_service_pb2.WatchStatsRequest) -> int:
    if not request.HasField("interval"):
        return SECOND
    return validate.duration("interval", request.interval, SHORTEST_INTERVAL, HOUR)
