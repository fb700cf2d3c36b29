"""`jobwire dead list` and `dead retry`: dead letters, the jobs that have FAILED for good."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from jobwire_client.cli import show
from jobwire_client.cli.bulk import bulk_options, change_all
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.values import filter_of, filter_options_but_state

if TYPE_CHECKING:
    from jobwire_client import FilterFields, Job

_SHOWN: Final = 60
"""Characters of an error."""


@click.group("dead")
def dead_command() -> None:
    """Look at dead letters, the jobs that have failed for good, and let them run again."""


@dead_command.command("list")
@filter_options_but_state
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The most to show.")
@click.option("--all", "is_all", is_flag=True, help="Without a limit.")
@calls_server
def list_command(call: Call, *, limit: int, is_all: bool, **options: Any) -> None:
    """List dead letters, with what went wrong.

    \b
    jobwire dead list --queue mail
    jobwire dead list --all --output json | jq -r .error.code | sort | uniq -c
    """
    wanted = None if is_all else limit
    with call.client() as client:
        found = client.list(limit=wanted, **_dead(filter_of(options)))
        if call.is_json:
            for job in found:
                show.as_json(job)
            return
        now = datetime.now(UTC)
        rows = [
            (
                job.id,
                job.queue,
                job.type or "-",
                str(job.attempt),
                show.age(now - job.finish_time.ToDatetime(UTC)),
                _error(job),
            )
            for job in found
        ]
    show.table(("ID", "QUEUE", "TYPE", "ATTEMPTS", "FAILED AGO", "ERROR"), rows, numbers=("ATTEMPTS", "FAILED AGO"))
    if not rows:
        click.echo("no dead letters", err=True)
    elif len(rows) == wanted:
        click.echo(f"the first {wanted}: there may be more, see --limit and --all", err=True)


@dead_command.command("retry")
@filter_options_but_state
@click.option("--all", "is_all", is_flag=True, help="Of all queues, where no filter is given.")
@bulk_options
@calls_server
def retry_command(call: Call, *, is_all: bool, limit: int | None, **options: Any) -> None:
    """Let dead letters run again, with fresh retries. What fails again meanwhile is left alone.

    \b
    jobwire dead retry --queue mail --dry-run
    jobwire dead retry --queue mail --type welcome --created-after '6h ago'
    """
    care = {name: options.pop(name) for name in ("is_sure", "is_dry")}
    where = filter_of(options)
    if bool(where) == is_all:
        raise click.UsageError("give either a filter such as --queue mail, or --all")
    with call.client() as client:
        change_all(
            call,
            "retry",
            count=lambda: client.retry_where(limit=limit, validate_only=True, **_dead(where)),
            change=lambda told: client.retry_where(limit=limit, told=told, **_dead(where)),
            **care,
        )


def _dead(where: FilterFields) -> FilterFields:
    return {**where, "states": ["FAILED"]}


def _error(job: Job) -> str:
    text = show.first_line(f"{job.error.code}: {job.error.message}".removeprefix(": "))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
