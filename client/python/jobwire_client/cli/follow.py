"""`jobwire wait` and `jobwire watch`: they stay until something has happened."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.exits import Exit, of_state
from jobwire_client.cli.values import duration, filter_of, filter_options

if TYPE_CHECKING:
    from jobwire_client import Client, Job, JobChange

wait_timeout_option = click.option(
    "--wait-timeout", type=duration, metavar="DURATION", help="Wait no longer than this, in all."
)


@click.command("wait")
@click.argument("job_ids", nargs=-1, required=True, metavar="ID…")
@wait_timeout_option
@calls_server
def wait_command(call: Call, job_ids: tuple[str, ...], *, wait_timeout: timedelta | None) -> None:
    """Wait until jobs have ended; the exit code tells how.

    Of one job the result is printed, of several a line each.

    \b
    jobwire wait nightly && echo done
    jobwire wait nightly weekly --wait-timeout 1h --output json | jq -r .state
    """
    with call.client() as client:
        await_end(call, client, job_ids, wait_timeout)


def await_end(call: Call, client: Client, job_ids: Sequence[str], wait_timeout: timedelta | None) -> None:
    """Prints how the jobs ended, and ends the command with the exit code for it."""
    from jobwire_client import JobwireError, state_name

    deadline = math.inf if wait_timeout is None else time.monotonic() + wait_timeout.total_seconds()
    worst = Exit.OK
    for job_id in job_ids:
        left = max(deadline - time.monotonic(), 0)
        try:
            job = client.wait(job_id, timeout=None if left == math.inf else left)
        except TimeoutError:
            click.echo(
                f"jobwire: {job_id} has not ended yet\n  `jobwire why {job_id}` tells what it waits for.", err=True
            )
            worst = Exit.NOT_ENDED
            continue
        except JobwireError as error:
            worst = call.tell(error)
            continue
        if call.is_json:
            show.as_json(job)
        elif len(job_ids) > 1:
            click.echo(f"{job.id}  {state_name(job.state)}")
        else:
            _show_result(job)
        worst = of_state(state_name(job.state)) or worst
    raise click.exceptions.Exit(worst)


def _show_result(job: Job) -> None:
    from jobwire_client import state_name

    if job.HasField("result"):
        body = job.result.text if job.result.WhichOneof("body") == "text" else job.result.data
        click.echo(body, nl=isinstance(body, str) and not body.endswith("\n"))
    state = state_name(job.state)
    if state != "COMPLETED":
        said = f": {show.lines(job.error.message)}" if job.HasField("error") else ""
        click.echo(f"jobwire: the job is {state}{said}", err=True)


@click.command("watch")
@click.argument("job_ids", nargs=-1, metavar="[ID…]")
@filter_options
@calls_server
def watch_command(call: Call, job_ids: tuple[str, ...], **options: Any) -> None:
    """Show jobs as they are, and then each change as it comes, until Ctrl-C.

    By ids, by a filter, or all. Quick changes become one; the end of a job is never left out. --state chooses what is
    shown at the start. A server that goes away is waited for.

    \b
    jobwire watch --queue mail
    jobwire watch --user ann --output json | jq -r '.changed.id // empty'
    """
    where = filter_of(options)
    if job_ids and where:
        raise click.UsageError("give either ids, or a filter")
    with call.client() as client:
        client.server_info()  # a wrong address should be told, not waited for
        for change in client.watch(job_ids, timeout=math.inf, **where):
            _show_change(call, change)


def _show_change(call: Call, change: JobChange) -> None:
    if call.is_json:
        from google.protobuf.json_format import MessageToDict

        show.line({"removed": change.job_id} if change.job is None else {"changed": MessageToDict(change.job)})
    elif change.job is None:
        click.echo(f"{time.strftime('%H:%M:%S')}  {change.job_id}  removed")
    else:
        show.change(change.job)
