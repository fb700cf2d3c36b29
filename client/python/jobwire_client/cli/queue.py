"""`jobwire queue show`, `queue set` and `purge`: one queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from jobwire_client.cli import show
from jobwire_client.cli.bulk import bulk_options, change_all
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.values import STATES, duration

if TYPE_CHECKING:
    from jobwire.v1.queue_pb2 import Queue
    from jobwire_client.models import QueueSettings

DEFAULT: Final = "default"
"""What puts a setting back."""


def _duration(text: str) -> timedelta | None:
    """None = back to the default."""
    return None if text == DEFAULT else duration(text)


def _ceiling(text: str) -> int | None:
    if text in (DEFAULT, "none"):
        return None
    if not text.isdecimal() or int(text) == 0:
        raise click.BadParameter(f"{text!r} is no number from 1 on; to stop a queue, pause it; 'none' lifts the limit")
    return int(text)


@click.group("queue")
def queue_command() -> None:
    """Look at one queue, or change its settings."""


@queue_command.command("show")
@click.argument("queue")
@calls_server
def show_command(call: Call, queue: str) -> None:
    """Show the settings of QUEUE and what is in it.

    \b
    jobwire queue show mail
    """
    with call.client() as client:
        _show(call, client.get_queue(queue))


@queue_command.command("set")
@click.argument("queue")
@click.option(
    "--max-in-flight", type=_ceiling, metavar="N", help="The most of its jobs that may run at once, or 'none'."
)
@click.option("--retention", type=_duration, metavar="DURATION", help="How long ended jobs stay, or 'default'.")
@click.option(
    "--ageing", type=_duration, metavar="DURATION", help="What a level of priority is worth in waiting, or 'default'."
)
@click.option("--create", is_flag=True, help="Make the queue where there is none.")
@calls_server
@click.pass_context
def set_command(ctx: click.Context, /, call: Call, queue: str, *, create: bool, **settings: Any) -> None:
    """Change settings of QUEUE. They hold at every server at once; what is not named stays.

    A limit takes nothing away from workers. Retention holds for jobs that end from now on, ageing for jobs that are
    queued from now on.

    \b
    jobwire queue set mail --max-in-flight 20
    jobwire queue set mail --retention 3d --max-in-flight none
    """
    given: QueueSettings = {}
    for name, value in settings.items():
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            given[name] = value  # type: ignore[literal-required]  # its options are called as the settings are
    if not given:
        raise click.UsageError("nothing to change: give --max-in-flight, --retention or --ageing")
    with call.client() as client:
        changed = client.update_queue(queue, allow_missing=create, **given)
    _show(call, changed)


@click.command("purge")
@click.argument("queue")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state for state in STATES if state != "IN_PROGRESS"], case_sensitive=False),
    help="Those in it; may be repeated.  [default: queued and scheduled]",
)
@bulk_options
@calls_server
def purge_command(call: Call, queue: str, *, states: tuple[str, ...], limit: int | None, **care: Any) -> None:
    """Delete the jobs of QUEUE that wait, or those in other states. They leave no trace.

    Running jobs are left alone; the queue and its settings stay.

    \b
    jobwire purge mail --dry-run
    jobwire purge mail --state failed --yes
    """
    from jobwire_client import state_name

    wanted = states or ("QUEUED", "SCHEDULED")
    with call.client() as client:

        def count() -> int:
            found = sum(each.count for each in client.get_queue(queue).counts if state_name(each.state) in wanted)
            return found if limit is None else min(found, limit)

        change_all(
            call,
            "purge",
            count=count,
            change=lambda told: client.purge_queue(queue, states=wanted, limit=limit, told=told),
            **care,
        )


def _show(call: Call, queue: Queue) -> None:
    if call.is_json:
        show.as_json(queue)
        return
    from jobwire_client import state_name

    now = datetime.now(UTC)
    counts = [f"{each.count:,} {state_name(each.state).lower()}" for each in queue.counts]
    pairs = [
        ("queue", queue.name),
        ("paused", "yes" if queue.paused else "no"),
        ("max in flight", f"{queue.max_in_flight:,}" if queue.HasField("max_in_flight") else "none"),
        ("retention", _retention(queue)),
        ("ageing", f"{show.age(queue.ageing.ToTimedelta())} for each level of priority"),
        ("jobs", ", ".join(counts) or "none"),
    ]
    if queue.HasField("oldest_waiting_age"):
        pairs.append(("oldest waits", show.age(queue.oldest_waiting_age.ToTimedelta())))
    pairs.append(("created", show.moment(queue.create_time.ToDatetime(UTC), now)))
    show.facts(pairs)


def _retention(queue: Queue) -> str:
    if not queue.HasField("retention"):
        return "of the state: a day when completed, else a week"
    return show.age(queue.retention.ToTimedelta())
