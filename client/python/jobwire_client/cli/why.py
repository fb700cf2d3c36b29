"""`jobwire why`: what a job waits for, what happens next, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server

if TYPE_CHECKING:
    from jobwire_client import Client, Job

LOOKED_AT: Final = 2_000
"""Jobs in line that are read before "more than"."""


@dataclass(frozen=True, slots=True)
class Line:
    """What stands around a waiting job."""

    is_paused: bool
    in_flight: int
    ceiling: int | None
    """Of the queue, over all workers."""
    ahead: int
    """LOOKED_AT: that many or more."""


@dataclass(frozen=True, slots=True)
class Why:
    """The answer. `reasons` are words for programs."""

    reasons: tuple[str, ...]
    now: str
    next: str


@click.command("why")
@click.argument("job_id", metavar="ID")
@calls_server
def why_command(call: Call, job_id: str) -> None:
    """Tell why a job is not running, and what comes next.

    \b
    jobwire why nightly-report
    """
    from jobwire_client import state_name

    with call.client() as client:
        job = client.get(job_id)
        state = state_name(job.state)
        line = _line(client, job) if state == "QUEUED" else None
        at = client.server_info().server_time.ToDatetime(UTC)
    why = waits_in_line(job, line) if line else explain(job, state, at)
    if call.is_json:
        show.line({"id": job.id, "state": state, "reasons": why.reasons, "now": why.now, "next": why.next})
    else:
        show.facts([("state", state), ("now", why.now), ("next", why.next)])


def waits_in_line(job: Job, line: Line) -> Why:
    """Of a QUEUED job: everything that holds it up, the first thing first."""
    reasons, said, steps = [], [], []
    if line.is_paused:
        reasons.append("QUEUE_PAUSED")
        said.append(f"queue {job.queue} is paused")
        steps.append(f"`jobwire resume {job.queue}` lets its jobs run again")
    if line.ceiling is not None and line.in_flight >= line.ceiling:
        reasons.append("QUEUE_AT_CEILING")
        said.append(f"queue {job.queue} runs {line.in_flight} jobs, and may run {line.ceiling} at once")
        steps.append("it moves up when one of those ends")
    if line.ahead:
        more = "more than " if line.ahead >= LOOKED_AT else ""
        reasons.append("JOBS_AHEAD")
        said.append(f"{more}{line.ahead:,} {'job is' if line.ahead == 1 else 'jobs are'} ahead of it")
    if not reasons:
        reasons.append("NO_FREE_WORKER")
        said.append(f"it is the next in queue {job.queue}, and no worker with a free hand has taken it yet")
    if not steps:
        steps.append(
            f"a worker of queue {job.queue} takes it when its turn comes"
            f" ({line.in_flight:,} running there now); start one: jobwire work --queue {job.queue} --exec COMMAND"
        )
    if job.attempt:
        said.append(_attempts(job))
    return Why(tuple(reasons), "; ".join(said), "; ".join(steps) + _expiry(job))


def explain(job: Job, state: str, now: datetime) -> Why:
    """Of a job that waits for a time, runs, or has ended."""
    match state:
        case "SCHEDULED":
            return _scheduled(job, now)
        case "IN_PROGRESS":
            return _running(job, now)
        case "COMPLETED":
            return Why(("ENDED",), f"it completed {_end(job, now)}", _gone(job, now))
        case "FAILED":
            said = show.first_line(f"{job.error.code}: {job.error.message}".removeprefix(": "))
            return Why(("ENDED",), f"it failed for good {_end(job, now)}: {said}; {_attempts(job)}", _again(job, now))
        case "CANCELED":
            reason = f": {show.plain(job.cancel_reason)}" if job.cancel_reason else ""
            return Why(("ENDED",), f"it was canceled {_end(job, now)}{reason}", _again(job, now))
        case "EXPIRED":
            at = show.moment(job.expire_time.ToDatetime(UTC), now)
            return Why(("ENDED",), f"nobody had started it by its expire_time, {at}", _again(job, now))
    return Why(("UNKNOWN",), f"its state, {state}, is newer than this command", "update jobwire")


def _scheduled(job: Job, now: datetime) -> Why:
    due = show.moment(job.schedule_time.ToDatetime(UTC), now)
    to_start = f"`jobwire update {job.id} --schedule now` starts it sooner"
    if job.retry_count or job.interruption_count:
        said = f": {show.first_line(job.error.message)}" if job.HasField("error") else ""
        return Why(
            ("WAITS_FOR_RETRY",),
            f"it waits to be tried again{said}; {_attempts(job)}",
            f"it joins queue {job.queue} again {due}; {to_start}{_expiry(job)}",
        )
    if job.attempt:
        return Why(
            ("GIVEN_BACK",),
            f"its worker gave it back; {_attempts(job)}",
            f"it joins queue {job.queue} again {due}; {to_start}",
        )
    return Why(
        ("SCHEDULED",), "it is scheduled for later", f"it joins queue {job.queue} {due}; {to_start}{_expiry(job)}"
    )


def _running(job: Job, now: datetime) -> Why:
    worker = job.lease.worker_id
    deadline = show.moment(job.lease.expire_time.ToDatetime(UTC), now)
    if not job.lease.acknowledged:
        return Why(
            ("BEING_DELIVERED",),
            f"it is on its way to worker {worker}",
            f"the worker acknowledges it, or it goes back in line {deadline}",
        )
    since = show.moment(job.start_time.ToDatetime(UTC), now)
    doing = f"it runs at worker {worker} since {since}; {_attempts(job)}"
    if job.HasField("progress"):
        fraction = f"{job.progress.fraction:.0%} " if job.progress.HasField("fraction") else ""
        doing += f"; progress: {fraction}{show.plain(job.progress.message)}".rstrip()
    if job.cancel_requested:
        reason = f" ({show.plain(job.cancel_reason)})" if job.cancel_reason else ""
        return Why(
            ("IN_PROGRESS", "CANCEL_REQUESTED"),
            f"{doing}; a cancel was requested{reason}",
            "it is CANCELED when the worker stops, or when the cancel's grace is over",
        )
    return Why(("IN_PROGRESS",), doing, f"the worker settles it, or falls silent and loses it {deadline}")


def _line(client: Client, job: Job) -> Line:
    from jobwire_client import state_name

    queue = client.get_queue(job.queue)
    counts = {state_name(each.state): each.count for each in queue.counts}
    # Jobs of one queue that are QUEUED come in the order in which they are claimed.
    line = client.list(queues=[job.queue], states=["QUEUED"], page_size=1000, limit=LOOKED_AT)
    return Line(
        is_paused=queue.paused,
        in_flight=counts.get("IN_PROGRESS", 0),
        ceiling=queue.max_in_flight if queue.HasField("max_in_flight") else None,
        ahead=sum(1 for _ in takewhile(lambda other: other.id != job.id, line)),
    )


def _attempts(job: Job) -> str:
    policy = job.retry_policy
    told = f"attempt {job.attempt}" if job.attempt else "no attempt yet"
    told += f", {job.retry_count} of {policy.max_retries} retries used"
    if job.interruption_count:
        told += f", {job.interruption_count} of {policy.max_interruptions} interruptions"
    return told


def _end(job: Job, now: datetime) -> str:
    return show.moment(job.finish_time.ToDatetime(UTC), now)


def _again(job: Job, now: datetime) -> str:
    return f"`jobwire retry {job.id}` runs it again; {_gone(job, now)}"


def _gone(job: Job, now: datetime) -> str:
    if not job.HasField("purge_time"):
        return "nothing"
    return f"it is removed {show.moment(job.purge_time.ToDatetime(UTC), now)}"


def _expiry(job: Job) -> str:
    if not job.HasField("expire_time") or job.attempt:
        return ""
    return f"; EXPIRED if nobody has started it by {job.expire_time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M:%S %z}"
