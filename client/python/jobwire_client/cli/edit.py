"""`jobwire update`: changes to a job that has not ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.values import duration, label, payload_of, when

if TYPE_CHECKING:
    from jobwire_client import EditFields

FIELDS = ("payload", "priority", "schedule", "expire", "retention", "labels")


@click.command("update")
@click.argument("job_id", metavar="ID")
@click.option("--payload", metavar="PAYLOAD", help="The text itself, @FILE, or -; not while a worker holds the job.")
@click.option("--priority", type=click.IntRange(1, 10), help="1 comes first, 10 last.")
@click.option("--schedule", type=when, metavar="TIME", help="Not before: 2030-01-31T08:00:00Z, 'in 10m', or now.")
@click.option("--expire", type=when, metavar="TIME", help="EXPIRED when not started by then.")
@click.option("--retention", type=duration, metavar="DURATION", help="How long it stays after its end.")
@click.option("--label", "labels", multiple=True, type=label, metavar="KEY=VALUE", help="In place of all its labels.")
@click.option("--unset", multiple=True, type=click.Choice(FIELDS), help="Back to the default; may be repeated.")
@click.option("--etag", default="", help="Only if the job is still as `jobwire get` showed it.")
@calls_server
def update_command(
    call: Call,
    job_id: str,
    *,
    payload: str | None,
    priority: int | None,
    schedule: datetime | None,
    expire: datetime | None,
    retention: timedelta | None,
    labels: tuple[tuple[str, str], ...],
    unset: tuple[str, ...],
    etag: str,
) -> None:
    """Edit a job.

    \b
    jobwire update ID --priority 1
    jobwire update ID --schedule now --unset expire
    """
    fields: EditFields = {}
    if payload is not None or "payload" in unset:
        fields["payload"] = payload_of(payload)
    if priority is not None or "priority" in unset:
        fields["priority"] = priority
    if schedule is not None or "schedule" in unset:
        fields["schedule_time"] = schedule
    if expire is not None or "expire" in unset:
        fields["expire_time"] = expire
    if retention is not None or "retention" in unset:
        fields["retention"] = retention
    if labels or "labels" in unset:
        fields["labels"] = dict(labels)
    if not fields:
        raise click.UsageError("nothing to change: give --priority, --schedule, or another")
    with call.client() as client:
        job = client.update(job_id, etag=etag, **fields)
    if call.is_json:
        show.as_json(job)
    else:
        show.jobs([job])
