"""`jobwire create`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.follow import await_end, wait_timeout_option
from jobwire_client.cli.values import ENDS, duration, label, payload_of, when

if TYPE_CHECKING:
    from jobwire.v1.job_pb2 import Webhook
    from jobwire_client import JobFields, Payload, RetryPolicy


@click.command("create")
@click.argument("payload", required=False)
@click.option("--type", "type_", default="", metavar="TYPE", help="Names the handler that runs it.")
@click.option("--queue", default="", metavar="QUEUE", help="The line it joins.  [default: default]")
@click.option("--id", "job_id", default="", help="The job's id: the same create again then makes no second job.")
@click.option("--request-id", default="", help="The same for a job whose id the server makes; remembered for 24 h.")
@click.option("--priority", type=click.IntRange(1, 10), help="1 comes first, 10 last.  [default: 5]")
@click.option("--schedule", type=when, metavar="TIME", help="Not before: 2030-01-31T08:00:00Z, or 'in 10m'.")
@click.option("--expire", type=when, metavar="TIME", help="EXPIRED when not started by then.")
@click.option("--execution-timeout", type=duration, metavar="DURATION", help="The most for one attempt, such as 5m.")
@click.option("--retention", type=duration, metavar="DURATION", help="How long it stays after its end.")
@click.option("--max-retries", type=click.IntRange(min=0), help="After failures that a worker reports.  [default: 3]")
@click.option("--user", default="", metavar="USER", help="On whose behalf it runs.")
@click.option("--label", "labels", multiple=True, type=label, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--content-type", metavar="TYPE", help="Of the payload.  [default: text/plain; of bytes octet-stream]")
@click.option("--webhook", "webhook_url", metavar="URL", help="POST the job there when it has ended.")
@click.option(
    "--webhook-event",
    "webhook_events",
    multiple=True,
    type=click.Choice(ENDS, case_sensitive=False),
    help="Only when it ended so; may be repeated.",
)
@click.option("--webhook-secret", default="", metavar="NAME", help="Of a signing secret that the server has.")
@click.option("--wait", is_flag=True, help="Wait for its end; the exit code then tells which one.")
@wait_timeout_option
@calls_server
def create_command(
    call: Call,
    payload: str | None,
    *,
    type_: str,
    queue: str,
    job_id: str,
    request_id: str,
    priority: int | None,
    schedule: datetime | None,
    expire: datetime | None,
    execution_timeout: timedelta | None,
    retention: timedelta | None,
    max_retries: int | None,
    user: str,
    labels: tuple[tuple[str, str], ...],
    content_type: str | None,
    webhook_url: str | None,
    webhook_events: tuple[str, ...],
    webhook_secret: str,
    wait: bool,
    wait_timeout: timedelta | None,
) -> None:
    """Create a job, and print its id.

    PAYLOAD is the text itself, @FILE, or - for standard input.

    \b
    jobwire create '{"to": "ann@example.org"}' --type email.send --queue mail
    jobwire create @report.json --type report --schedule 'in 10m' --label team=a
    jobwire create --type backup --wait && echo done
    jobwire create --type backup --webhook https://example.org/hook --webhook-event failed
    """
    body = _payload(payload, content_type)
    fields: JobFields = {"id": job_id, "queue": queue, "user_id": user, "labels": dict(labels)}
    if priority is not None:
        fields["priority"] = priority
    if schedule is not None:
        fields["schedule_time"] = schedule
    if expire is not None:
        fields["expire_time"] = expire
    if execution_timeout is not None:
        fields["execution_timeout"] = execution_timeout
    if retention is not None:
        fields["retention"] = retention
    if max_retries is not None:
        fields["retry_policy"] = _policy(max_retries)
    if webhook_url is not None:
        fields["webhook"] = _webhook(webhook_url, webhook_events, webhook_secret)
    elif webhook_events or webhook_secret:
        raise click.UsageError("--webhook-event and --webhook-secret need --webhook URL")
    with call.client() as client:
        job = client.create(type_, body, request_id=request_id, **fields)
        if wait or wait_timeout is not None:
            click.echo(f"job {job.id}", err=True)  # now: a wait may be long, or be interrupted
            await_end(call, client, [job.id], wait_timeout)
        elif call.is_json:
            show.as_json(job)
        else:
            click.echo(job.id)


def _payload(text: str | None, content_type: str | None) -> Payload | str | bytes | None:
    body = payload_of(text)
    if body is None or content_type is None:
        return body
    from jobwire_client import Payload

    return (
        Payload(content_type=content_type, text=body)
        if isinstance(body, str)
        else Payload(content_type=content_type, data=body)
    )


def _policy(max_retries: int) -> RetryPolicy:
    from jobwire_client import RetryPolicy

    return RetryPolicy(max_retries=max_retries)


def _webhook(url: str, events: tuple[str, ...], secret_ref: str) -> Webhook:
    from jobwire_client import webhook

    return webhook(url, events=[event.upper() for event in events], secret_ref=secret_ref)
