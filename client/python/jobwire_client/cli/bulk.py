"""What is done to many jobs at once: counted, asked about, and told how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call
from jobwire_client.cli.exits import Exit

if TYPE_CHECKING:
    from jobwire_client.models import Told

Command = TypeVar("Command", bound=Callable[..., Any])

AT_ONCE: Final = 1_000
"""Jobs of one call of the server: no more than these are done before a bar could be seen."""

_DONE: Final = {
    "cancel": "canceled, or asked to stop",
    "retry": "queued again",
    "delete": "deleted",
    "purge": "deleted",
}


def bulk_options(command: Command) -> Command:
    """--yes, --dry-run and --limit."""
    for option in (
        click.option("--yes", "is_sure", is_flag=True, help="Ask nothing."),
        click.option("--dry-run", "is_dry", is_flag=True, help="Say how many it finds, and change nothing."),
        click.option("--limit", type=click.IntRange(min=1), help="The most to change."),
    ):
        command = option(command)
    return command


def change_all(
    call: Call, verb: str, *, is_sure: bool, is_dry: bool, count: Callable[[], int], change: Callable[[Told], int]
) -> None:
    """Counts and asks, unless `is_sure`; then changes them, with a bar where somebody looks on."""
    if is_dry:
        _tell(call, verb, count(), is_dry=True)
        return
    total = count() if not is_sure or sys.stderr.isatty() else 0
    if not is_sure and total:
        _confirm(verb, total)
    with _progress(verb, total) as told:
        changed = change(told)
    _tell(call, verb, changed, is_dry=False)


def _confirm(verb: str, total: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {verb} {_jobs(total)}: say --yes where nobody can be asked, or --dry-run")
    if not click.confirm(f"{verb} {_jobs(total)}?", err=True):
        raise click.exceptions.Exit(Exit.FAILED)


@contextmanager
def _progress(verb: str, total: int) -> Iterator[Told]:
    if total <= AT_ONCE or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label=verb, file=sys.stderr, show_pos=True) as bar:
        yield lambda number: bar.update(number - bar.pos)


def _tell(call: Call, verb: str, count: int, *, is_dry: bool) -> None:
    if call.is_json:
        show.line({"verb": verb, "count": count, "dryRun": is_dry})
    else:
        click.echo(f"would {verb} {_jobs(count)}" if is_dry else f"{_jobs(count)} {_DONE[verb]}")


def _jobs(count: int) -> str:
    return f"{count:,} {'job' if count == 1 else 'jobs'}"
