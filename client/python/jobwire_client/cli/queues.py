"""`jobwire queues`, `pause` and `resume`."""

from __future__ import annotations

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.values import STATES


@click.command("queues")
@calls_server
def queues_command(call: Call) -> None:
    """List queues, with their jobs by state.

    OLDEST is how long the head of the line has waited, LIMIT how many may run at once.

    \b
    jobwire queues
    jobwire queues --output json | jq -r 'select(.paused).name'
    """
    from jobwire_client import state_name

    with call.client() as client:
        queues = client.list_queues()
    if call.is_json:
        for queue in queues:
            show.as_json(queue)
        return
    heads = ("QUEUE", "PAUSED", *(state.replace("IN_PROGRESS", "RUNNING") for state in STATES), "LIMIT", "OLDEST")
    rows = []
    for queue in queues:
        counts = {state_name(each.state): each.count for each in queue.counts}
        rows.append(
            (
                queue.name,
                "yes" if queue.paused else "-",
                *(f"{counts.get(state, 0):,}" for state in STATES),
                f"{queue.max_in_flight:,}" if queue.HasField("max_in_flight") else "-",
                show.age(queue.oldest_waiting_age.ToTimedelta()) if queue.HasField("oldest_waiting_age") else "-",
            )
        )
    show.table(heads, rows, numbers=heads[2:])
    if not rows:
        click.echo("no queues: one comes into being with its first job", err=True)


@click.command("pause")
@click.argument("queue")
@calls_server
def pause_command(call: Call, queue: str) -> None:
    """Hand out no more jobs of QUEUE. What runs goes on, and creates are accepted.

    \b
    jobwire pause mail
    """
    with call.client() as client:
        changed = client.pause_queue(queue)
    if call.is_json:
        show.as_json(changed)
    else:
        click.echo(f"{changed.name} is paused; `jobwire resume {changed.name}` lifts it")


@click.command("resume")
@click.argument("queue")
@calls_server
def resume_command(call: Call, queue: str) -> None:
    """Hand out jobs of QUEUE again.

    \b
    jobwire resume mail
    """
    with call.client() as client:
        changed = client.resume_queue(queue)
    if call.is_json:
        show.as_json(changed)
    else:
        click.echo(f"{changed.name} is not paused")
