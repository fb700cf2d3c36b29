"""Answers on the terminal: JSON as the contract has it for programs, tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.table import Table

    from jobwire_client import Job, Payload

_UNBOUNDED: Final = 100_000
"""Columns where no terminal is: what a program cuts apart must not be folded."""
_PAYLOAD_SHOWN: Final = 2_000
"""Characters of a payload or a result on the terminal; --output json has all of it."""
_COLOURS: Final = {
    "QUEUED": "cyan",
    "SCHEDULED": "blue",
    "IN_PROGRESS": "yellow",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELED": "magenta",
    "EXPIRED": "magenta",
    "BUSY": "yellow",
    "QUIET": "blue",
    "LOST": "red",
}


def as_json(message: Message) -> None:
    """One line, in the JSON form of protobuf, which grpcurl shows as well."""
    from google.protobuf.json_format import MessageToDict

    line(MessageToDict(message))


def line(document: Any) -> None:
    """One JSON document on a line of its own."""
    click.echo(json.dumps(document, ensure_ascii=False))


def plain(text: str) -> str:
    """Text of a user's that gives the terminal no orders: what cannot be printed is written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(plain(each) for each in text.strip().splitlines())


def first_line(text: str) -> str:
    """The same for where there is room for one."""
    return plain(text.strip().partition("\n")[0])


def jobs(found: Iterable[Job]) -> int:
    """A table of jobs; how many there were."""
    from jobwire_client import state_name

    now = datetime.now(UTC)
    rows = [
        (
            job.id,
            job.queue,
            job.type or "-",
            state_name(job.state),
            str(job.priority),
            str(job.attempt),
            age(now - job.create_time.ToDatetime(UTC)),
            _remark(job, now),
        )
        for job in found
    ]
    table(("ID", "QUEUE", "TYPE", "STATE", "PRIO", "ATTEMPT", "AGE", ""), rows)
    return len(rows)


def change(job: Job) -> None:
    """One line, as it comes."""
    from jobwire_client import state_name

    state = state_name(job.state)
    styled = state if "NO_COLOR" in os.environ else click.style(state, _COLOURS[state])
    now = datetime.now(UTC)
    at = job.update_time.ToDatetime(UTC).astimezone()
    words = [f"{at:%H:%M:%S}", job.id, f"{styled}{' ' * (11 - len(state))}", job.queue, plain(job.type) or "-"]
    click.echo("  ".join([*words, _remark(job, now)]).rstrip())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Iterable[str] = ()) -> None:
    """Columns side by side; those named in `numbers` to the right. Nothing for no rows."""
    if rows:
        _print(tabled(heads, rows, numbers=numbers))


def tabled(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Iterable[str] = (), is_cut: bool = False
) -> Table:
    """The same, to be printed later; with `is_cut` each row is one line, whatever has no room in it."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    whole = {"ID", "STATE", "AGE"}  # an id is there to be copied
    right = {"PRIO", "ATTEMPT", "AGE", *numbers}
    for head in heads:
        made.add_column(
            head,
            overflow="ellipsis" if is_cut else "fold",
            no_wrap=is_cut or head in whole,
            justify="right" if head in right else "left",
        )
    for row in rows:
        made.add_row(*(Text(plain(cell), style=_COLOURS.get(cell, "")) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair to a line."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, Text(value, style=_COLOURS.get(value, "")))
    _print(made)


def job(found: Job) -> None:
    """All that a person asks of one job."""
    from jobwire.v1.job_pb2 import AttemptOutcome
    from jobwire_client import state_name

    now = datetime.now(UTC)
    pairs = [
        ("id", found.id),
        ("state", state_name(found.state)),
        ("queue", f"{found.queue}, priority {found.priority}"),
        ("type", plain(found.type) or "-"),
    ]
    if found.user_id:
        pairs.append(("user", plain(found.user_id)))
    if found.labels:
        pairs.append(("labels", ", ".join(plain(f"{key}={value}") for key, value in sorted(found.labels.items()))))
    for name in ("create", "schedule", "expire", "start", "finish", "purge"):
        time = getattr(found, f"{name}_time")
        if time.ByteSize():  # else absent
            pairs.append((name, moment(time.ToDatetime(UTC), now)))
    policy = found.retry_policy
    spent = f"{found.retry_count} of {policy.max_retries} retries"
    spent += f", {found.interruption_count} of {policy.max_interruptions} interruptions used"
    pairs.append(("attempts", f"{found.attempt}; {spent}"))
    for attempt in found.attempts:
        outcome = AttemptOutcome.Name(attempt.outcome).removeprefix("ATTEMPT_OUTCOME_").lower()
        said = f"  {attempt.error.code}: {attempt.error.message}" if attempt.HasField("error") else ""
        pairs.append((f"  {attempt.number}", first_line(f"{outcome} on {attempt.worker_id}{said}")))
    if found.HasField("lease"):
        until = moment(found.lease.expire_time.ToDatetime(UTC), now)
        pairs.append(("lease", f"worker {found.lease.worker_id}, until {until}"))
    if found.HasField("progress"):
        fraction = f"{found.progress.fraction:.0%} " if found.progress.HasField("fraction") else ""
        pairs.append(("progress", f"{fraction}{plain(found.progress.message)}"))
    if found.cancel_requested:
        pairs.append(("cancel", f"requested {plain(found.cancel_reason)}".strip()))
    if found.HasField("error"):
        pairs.append(("error", lines(f"{found.error.code}: {found.error.message}".removeprefix(": "))))
    if found.HasField("payload"):
        pairs.append(("payload", _body(found.payload)))
    if found.HasField("result"):
        pairs.append(("result", _body(found.result)))
    pairs.append(("etag", found.etag))
    facts(pairs)


def age(span: timedelta) -> str:
    """The two largest units, or less: 3d 4h, 12m, 5s."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 60:
        return f"{seconds}s"
    pieces = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            pieces.append(f"{count}{unit}")
        elif pieces:
            break
    return " ".join(pieces[:2])


def moment(when: datetime, now: datetime) -> str:
    """A time of day here, and how far that is from now."""
    distance = f"in {age(when - now)}" if when > now else f"{age(now - when)} ago"
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S %z} ({distance})"


def _remark(job: Job, now: datetime) -> str:
    from jobwire_client import state_name

    match state_name(job.state):
        case "SCHEDULED":
            return f"in {age(job.schedule_time.ToDatetime(UTC) - now)}"
        case "IN_PROGRESS":
            return f"on {job.lease.worker_id}{_progress(job)}"
        case "FAILED" | "EXPIRED":
            text = first_line(job.error.message)
            return text if len(text) <= 60 else text[:59] + "…"
    return ""


def _progress(job: Job) -> str:
    fraction = f", {job.progress.fraction:.0%}" if job.progress.HasField("fraction") else ""
    return fraction + (f", {first_line(job.progress.message)}" if job.progress.message else "")


def _body(payload: Payload) -> str:
    if payload.WhichOneof("body") == "data":
        return f"{len(payload.data):,} bytes of {plain(payload.content_type) or 'no type'}"
    text = lines(payload.text)
    return text if len(text) <= _PAYLOAD_SHOWN else f"{text[:_PAYLOAD_SHOWN]}… ({len(text):,} characters)"


def _print(table: Table) -> None:
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    # NO_COLOR is rich's own to obey; elsewhere than on a terminal it must neither colour nor fold.
    console = Console(
        force_terminal=is_terminal,
        width=None if is_terminal else _UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
    )
    with console.capture() as printed:
        console.print(table)
    for row in printed.get().splitlines():
        click.echo(row.rstrip(), color=is_terminal)
