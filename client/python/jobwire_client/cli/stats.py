"""`jobwire stats` and `top`: how the work goes, once or live."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.values import duration

if TYPE_CHECKING:
    from rich.console import ConsoleDimensions, RenderableType

    from jobwire.v1.admin_service_pb2 import Activity, GetServerInfoResponse, QueueStats, Stats, WorkerCounts

WINDOWS: Final = {"1m": 0, "5m": 1, "15m": 2}

_NUMBERS: Final = ("WAITING", "OLDEST", "RUNNING", "LATER", "DEAD", "IN/MIN", "DONE/MIN", "FAIL/MIN", "RUN", "WORKERS")
_HEADS: Final = ("QUEUE", *_NUMBERS)
_AROUND: Final = 5
"""Lines of `top` that are no queue: head, workers, heads of columns, totals, and one for what is left out."""

_window_option = click.option(
    "--window", type=click.Choice([*WINDOWS]), default="1m", show_default=True, help="The rates are of this time."
)


@click.command("stats")
@click.argument("queues", nargs=-1, metavar="[QUEUE…]")
@_window_option
@click.option("--minutes", is_flag=True, help="Also the last hour, minute by minute, of all these together.")
@calls_server
def stats_command(call: Call, queues: tuple[str, ...], *, window: str, minutes: bool) -> None:
    """Show how the work of QUEUEs goes, or of all.

    WAITING may be claimed, OLDEST is how long the head of the line has waited, LATER is scheduled, DEAD has failed for
    good. Rates are jobs a minute: created, completed, and failed or to be retried; RUN is the mean time of the
    completed.

    \b
    jobwire stats
    jobwire stats mail --window 15m --minutes
    jobwire stats --output json | jq .stats.totals
    """
    with call.client() as client:
        stats = client.stats(queues, minutes=minutes)
    if call.is_json:
        show.as_json(stats)
        return
    rows = [_row(queue, window) for queue in stats.queues]
    if len(rows) > 1:
        rows.append(_row(stats.totals, window))
    show.table(_HEADS, rows, numbers=_NUMBERS)
    if not rows:
        click.echo("no such queues" if queues else "no queues: one comes into being with its first job", err=True)
    click.echo(_workers(stats.workers))
    if minutes:
        _show_minutes(stats)


def _show_minutes(stats: Stats) -> None:
    at = stats.server_time.ToDatetime(UTC).astimezone().replace(second=0)
    ago = len(stats.minutes)
    rows = [
        (
            f"{at - timedelta(minutes=ago - number):%H:%M}",
            f"{minute.created_count:,}",
            f"{minute.completed_count:,}",
            f"{_failures(minute):,}",
            _span(minute.average_run_time.ToTimedelta()) if minute.HasField("average_run_time") else "-",
        )
        for number, minute in enumerate(stats.minutes)
    ]
    click.echo()
    heads = ("MINUTE", "IN", "DONE", "FAIL", "RUN")
    show.table(heads, rows, numbers=heads[1:])
    if not rows:
        click.echo("no minute is over yet")


@click.command("top")
@click.argument("queues", nargs=-1, metavar="[QUEUE…]")
@_window_option
@click.option(
    "--interval", type=duration, default="1s", show_default=True, metavar="DURATION", help="Between readings."
)
@calls_server
def top_command(call: Call, queues: tuple[str, ...], window: str, interval: timedelta) -> None:
    """Show the same live, the busiest queues first, until Ctrl-C. Where no terminal is, one line for each reading.

    \b
    jobwire top
    jobwire top mail reports --interval 5s
    jobwire top --output json | jq -c '.totals.counts'
    """
    with call.client() as client:
        info = client.server_info()  # a wrong address should be told, not waited for
        readings = client.watch_stats(queues, interval=interval, timeout=math.inf)
        if call.is_json:
            for stats in readings:
                show.as_json(stats)
        elif sys.stdout.isatty():
            _live(readings, info, call.address, window)
        else:
            for stats in readings:
                click.echo(_line(stats, window))


def _live(readings: Iterator[Stats], info: GetServerInfoResponse, address: str, window: str) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for stats in readings:
            live.update(_screen(stats, info, address, window, console.size), refresh=True)


def _screen(
    stats: Stats, info: GetServerInfoResponse, address: str, window: str, size: ConsoleDimensions
) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    at = stats.server_time.ToDatetime(UTC).astimezone()
    store = f"{info.store.engine} {info.store.engine_version}"
    head = f"jobwire {info.version} at {address}, {store}, {at:%H:%M:%S}, rates of {window}"
    busiest = sorted(stats.queues, key=lambda queue: (*(-count for count in _busy(queue)), queue.queue))
    shown = busiest[: max(size.height - _AROUND, 1)]
    rows = [_row(queue, window) for queue in (*shown, stats.totals)]
    # What has no room is cut from the names: the numbers are what it is about.
    taken = sum(2 + max(map(len, column)) for column in [*zip(_HEADS, *rows, strict=True)][1:])
    rows = [(_cut(name, max(size.width - taken - 2, 8)), *cells) for name, *cells in rows]
    parts: list[RenderableType] = [Text(head, style="bold"), Text(_workers(stats.workers))]
    parts.append(show.tabled(_HEADS, rows, numbers=_NUMBERS, is_cut=True))
    if len(busiest) > len(shown):
        parts.append(Text(f"and {len(busiest) - len(shown):,} queues more"))
    return Group(*parts)


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def _busy(queue: QueueStats) -> tuple[int, int]:
    counts = _counts(queue)
    lately = queue.activity[0].created_count + queue.activity[0].claimed_count if queue.activity else 0
    return counts.get("QUEUED", 0) + counts.get("IN_PROGRESS", 0), lately


def _line(stats: Stats, window: str) -> str:
    """One reading for a log."""
    heads, cells = _NUMBERS[:-1], _row(stats.totals, window)[1:-1]
    told = "  ".join(f"{head.lower()} {cell}" for head, cell in zip(heads, cells, strict=True))
    return f"{time.strftime('%H:%M:%S')}  {told}  {_workers(stats.workers)}"


def _row(queue: QueueStats, window: str) -> Sequence[str]:
    counts = _counts(queue)
    activity = queue.activity[WINDOWS[window]]
    return (
        ("(paused) " if queue.paused else "") + (queue.queue or "all"),
        f"{counts.get('QUEUED', 0):,}",
        show.age(queue.oldest_waiting_age.ToTimedelta()) if queue.HasField("oldest_waiting_age") else "-",
        f"{counts.get('IN_PROGRESS', 0):,}",
        f"{counts.get('SCHEDULED', 0):,}",
        f"{counts.get('FAILED', 0):,}",
        _rate(activity.created_count, activity),
        _rate(activity.completed_count, activity),
        _rate(_failures(activity), activity),
        _span(activity.average_run_time.ToTimedelta()) if activity.HasField("average_run_time") else "-",
        f"{queue.worker_count:,}",
    )


def _failures(activity: Activity) -> int:
    """Attempts that came to nothing. A dead letter that was interrupted too often is in two of the counts."""
    return activity.failed_count + activity.retried_count + activity.interrupted_count


def _counts(queue: QueueStats) -> dict[str, int]:
    from jobwire_client import state_name

    return {state_name(each.state): each.count for each in queue.counts}


def _rate(count: int, activity: Activity) -> str:
    """A minute."""
    seconds = activity.window.ToTimedelta().total_seconds()
    rate = 60 * count / seconds if seconds else 0.0
    return f"{rate:,.1f}" if 0 < rate < 10 else f"{rate:,.0f}"


def _span(span: timedelta) -> str:
    """Short ones too."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{1000 * seconds:.3g}ms"
    return f"{seconds:.3g}s" if seconds < 60 else show.age(span)


def _workers(counts: WorkerCounts) -> str:
    told = [
        f"{number:,} {state}"
        for state, number in (
            ("busy", counts.busy_count),
            ("idle", counts.idle_count),
            ("quiet", counts.quiet_count),
            ("lost", counts.lost_count),
        )
        if number
    ]
    return f"workers: {', '.join(told) or 'none'}"
