"""`jobwire cancel`, `retry` and `delete`: of jobs named by their ids, or of all that a filter finds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobwire_client.cli import show
from jobwire_client.cli.bulk import bulk_options, change_all
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.exits import Exit
from jobwire_client.cli.values import duration, filter_of, filter_options

if TYPE_CHECKING:
    from jobwire_client import Client, Job
    from jobwire_client.models import Told

Command = TypeVar("Command", bound=Callable[..., Any])


def _which(command: Command) -> Command:
    """Ids or a filter, and the care that a filter needs."""
    for wrap in (bulk_options, filter_options, click.argument("job_ids", nargs=-1, metavar="[ID…]")):
        command = wrap(command)
    return command


@click.command("cancel")
@_which
@click.option("--reason", default="", help="Shown in the job, and told to its worker.")
@click.option("--grace", type=duration, metavar="DURATION", help="What a running job is given to stop.  [default: 30s]")
@calls_server
def cancel_command(call: Call, *, reason: str, grace: timedelta | None, **options: Any) -> None:
    """Cancel jobs. One that a worker holds is asked to stop, and is CANCELED when it has.

    \b
    jobwire cancel ID --reason 'ordered twice'
    jobwire cancel --queue mail --state queued --dry-run
    """

    def by_filter(client: Client, is_dry: bool, told: Told | None, **which: Any) -> int:
        return client.cancel_where(reason=reason, grace=grace, validate_only=is_dry, told=told, **which)

    _steer(call, options, "cancel", lambda client, id_: client.cancel(id_, reason=reason, grace=grace), by_filter)


@click.command("retry")
@_which
@calls_server
def retry_command(call: Call, **options: Any) -> None:
    """Run ended jobs again, with fresh retries. Name a state: a filter without one finds COMPLETED jobs too.

    \b
    jobwire retry ID
    jobwire retry --queue mail --state failed
    """

    def by_filter(client: Client, is_dry: bool, told: Told | None, **which: Any) -> int:
        return client.retry_where(validate_only=is_dry, told=told, **which)

    _steer(call, options, "retry", lambda client, id_: client.retry(id_), by_filter)


@click.command("delete")
@_which
@click.option("--force", is_flag=True, help="With ids: also a job that a worker holds; the worker is told.")
@calls_server
def delete_command(call: Call, *, force: bool, **options: Any) -> None:
    """Delete jobs; they leave no trace. A filter passes over those that a worker holds.

    \b
    jobwire delete ID
    jobwire delete --state completed --created-before '7d ago' --yes
    """
    if force and not options["job_ids"]:
        raise click.UsageError("--force goes with ids")

    def by_filter(client: Client, is_dry: bool, told: Told | None, **which: Any) -> int:
        return client.delete_where(validate_only=is_dry, told=told, **which)

    _steer(call, options, "delete", lambda client, id_: client.delete(id_, force=force), by_filter)


def _steer(
    call: Call,
    options: dict[str, Any],
    verb: str,
    one: Callable[[Client, str], Job | None],
    by_filter: Callable[..., int],
) -> None:
    where = filter_of(options)
    job_ids: tuple[str, ...] = options.pop("job_ids")
    limit: int | None = options.pop("limit")
    if bool(job_ids) == bool(where):
        raise click.UsageError("give either ids, or a filter such as --queue mail --state failed")
    if job_ids and (options["is_dry"] or limit):
        raise click.UsageError("--dry-run and --limit go with a filter")
    with call.client() as client:
        if job_ids:
            _each(call, client, job_ids, one)
        else:
            change_all(
                call,
                verb,
                count=lambda: by_filter(client, True, None, limit=limit, **where),
                change=lambda told: by_filter(client, False, told, limit=limit, **where),
                **options,
            )


def _each(call: Call, client: Client, job_ids: tuple[str, ...], one: Callable[[Client, str], Job | None]) -> None:
    """One after the other; a refusal holds up none of the rest, and the last one gives the exit code."""
    from jobwire_client import JobwireError, state_name

    code = Exit.OK
    for job_id in job_ids:
        try:
            job = one(client, job_id)
        except JobwireError as error:
            code = call.tell(error)
            continue
        if call.is_json:
            show.as_json(job) if job is not None else show.line({"id": job_id, "deleted": True})
        elif job is None:
            click.echo(f"{job_id}  deleted")
        else:
            stopping = ", asked to stop" if job.cancel_requested and not job.HasField("finish_time") else ""
            click.echo(f"{job_id}  {state_name(job.state)}{stopping}")
    raise click.exceptions.Exit(code)
