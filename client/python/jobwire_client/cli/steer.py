"""`jobwire cancel`, `retry` and `delete`: of jobs named by their ids, or of all that a filter finds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.exits import Exit
from jobwire_client.cli.values import duration, filter_of, filter_options

if TYPE_CHECKING:
    from jobwire_client import Client, FilterFields, Job

Command = TypeVar("Command", bound=Callable[..., Any])


def _which(command: Command) -> Command:
    """Ids or a filter, and the care that a filter needs."""
    for option in (
        click.option("--yes", is_flag=True, help="Ask nothing."),
        click.option("--dry-run", is_flag=True, help="With a filter: say how many it finds, and change nothing."),
        click.option("--limit", type=click.IntRange(min=1), help="With a filter: the most to change."),
        filter_options,
        click.argument("job_ids", nargs=-1, metavar="[ID…]"),
    ):
        command = option(command)
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

    def by_filter(client: Client, limit: int | None, is_dry: bool, where: FilterFields) -> int:
        return client.cancel_where(reason=reason, grace=grace, limit=limit, validate_only=is_dry, **where)

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

    def by_filter(client: Client, limit: int | None, is_dry: bool, where: FilterFields) -> int:
        return client.retry_where(limit=limit, validate_only=is_dry, **where)

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

    def by_filter(client: Client, limit: int | None, is_dry: bool, where: FilterFields) -> int:
        return client.delete_where(limit=limit, validate_only=is_dry, **where)

    _steer(call, options, "delete", lambda client, id_: client.delete(id_, force=force), by_filter)


def _steer(
    call: Call,
    options: dict[str, Any],
    verb: str,
    one: Callable[[Client, str], Job | None],
    by_filter: Callable[[Client, int | None, bool, FilterFields], int],
) -> None:
    where = filter_of(options)
    job_ids: tuple[str, ...] = options["job_ids"]
    is_dry: bool = options["dry_run"]
    if bool(job_ids) == bool(where):
        raise click.UsageError("give either ids, or a filter such as --queue mail --state failed")
    if job_ids and (is_dry or options["limit"]):
        raise click.UsageError("--dry-run and --limit go with a filter")
    with call.client() as client:
        if job_ids:
            _each(call, client, job_ids, one)
        else:
            if not is_dry and not options["yes"]:
                _confirm(by_filter(client, options["limit"], True, where), verb)
            _tell(call, verb, by_filter(client, options["limit"], is_dry, where), is_dry)


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


def _confirm(count: int, verb: str) -> None:
    if count == 0:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {verb} {_jobs(count)}: say --yes where nobody can be asked, or --dry-run")
    if not click.confirm(f"{verb} {_jobs(count)}?", err=True):
        raise click.exceptions.Exit(Exit.FAILED)


def _tell(call: Call, verb: str, count: int, is_dry: bool) -> None:
    if call.is_json:
        show.line({"verb": verb, "count": count, "dryRun": is_dry})
    elif is_dry:
        click.echo(f"would {verb} {_jobs(count)}")
    else:
        done = {"cancel": "canceled, or asked to stop", "retry": "queued again", "delete": "deleted"}[verb]
        click.echo(f"{_jobs(count)} {done}")


def _jobs(count: int) -> str:
    return f"{count:,} {'job' if count == 1 else 'jobs'}"
