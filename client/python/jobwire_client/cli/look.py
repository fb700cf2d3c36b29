"""`jobwire get`, `list` and `count`: they only read."""

from __future__ import annotations

from typing import Any

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.exits import Exit
from jobwire_client.cli.values import filter_of, filter_options


@click.command("get")
@click.argument("job_ids", nargs=-1, required=True, metavar="ID…")
@calls_server
def get_command(call: Call, job_ids: tuple[str, ...]) -> None:
    """Show whole jobs: course, payload, result.

    \b
    jobwire get 0197c3a1-7f30-7cc2-a1b5-0123456789ab
    jobwire get nightly --output json | jq -r .result.text
    """
    from jobwire_client import JobwireError

    worst = Exit.OK
    with call.client() as client:
        for number, job_id in enumerate(job_ids):
            try:
                found = client.get(job_id)
            except JobwireError as error:
                worst = call.tell(error)
                continue
            if call.is_json:
                show.as_json(found)
            else:
                if number:
                    click.echo()
                show.job(found)
    raise click.exceptions.Exit(worst)


@click.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The most to show.")
@click.option("--all", "is_all", is_flag=True, help="Without a limit.")
@calls_server
def list_command(call: Call, *, limit: int, is_all: bool, **options: Any) -> None:
    """List jobs.

    One queue in one state comes in that order (queued: next to be claimed first), a user's jobs newest first, anything
    else in none.

    \b
    jobwire list --state failed --queue mail
    jobwire list --user ann --all --output json | jq -r .id
    """
    where = filter_of(options)
    wanted = None if is_all else limit
    with call.client() as client:
        if call.is_json:
            for job in client.list(limit=wanted, **where):
                show.as_json(job)
            return
        count = show.jobs(client.list(limit=wanted, **where))
    if count == 0:
        click.echo("no such jobs" if where else "no jobs", err=True)
    elif count == wanted:
        click.echo(f"the first {count}: there may be more, see --limit and --all", err=True)


@click.command("count")
@filter_options
@calls_server
def count_command(call: Call, **options: Any) -> None:
    """Count jobs by state.

    \b
    jobwire count --queue mail
    """
    with call.client() as client:
        counts = client.count(**filter_of(options))
    total = sum(counts.values())
    if call.is_json:
        show.line({"counts": counts, "total": total})
    else:
        rows = [(state, f"{count:,}") for state, count in counts.items()]
        show.table(("STATE", "JOBS"), [*rows, ("all", f"{total:,}")], numbers=("JOBS",))
