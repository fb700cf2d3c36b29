"""What people write for times, durations, labels and payloads, and the options that take them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from jobwire_client.models import FilterFields

Command = TypeVar("Command", bound=Callable[..., Any])

STATES: Final = ("SCHEDULED", "QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELED", "EXPIRED")

ENDS: Final = STATES[3:]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PIECE: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def duration(text: str) -> timedelta:
    """Seconds, or 500ms, 90s, 10m, 1h30m, 7d."""
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return timedelta(seconds=float(text))
        if re.fullmatch(f"(?:{_PIECE.pattern})+", text):
            return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(text)))
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long") from None
    raise click.BadParameter(f"{text!r} is no duration: write 90s, 10m, 1h30m or 7d")


def when(text: str) -> datetime:
    """A time with its zone, or "in 10m", "10m ago", "now"."""
    now = datetime.now(UTC)
    try:
        if text == "now":
            return now
        if text.startswith("in "):
            return now + duration(text.removeprefix("in "))
        if text.endswith(" ago"):
            return now - duration(text.removesuffix(" ago"))
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no time: write 2030-01-31T08:00:00Z, or 'in 10m'") from None
    if time.tzinfo is None:
        raise click.BadParameter(f"{text!r} has no time zone: add Z or +01:00")
    return time


def label(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{text!r} is no label: write KEY=VALUE")
    return key, value


def payload_of(text: str | None) -> str | bytes | None:
    """As given, of the file in `@FILE`, or standard input for `-`. Bytes where it is no text. UsageError."""
    if text is None:
        return None
    try:
        if text == "-":
            data = sys.stdin.buffer.read()
        elif text.startswith("@"):
            data = Path(text[1:]).read_bytes()
        else:
            return text
    except OSError as error:
        raise click.UsageError(f"{error.filename or text}: {error.strerror}") from None
    return as_text(data)


def as_text(data: bytes) -> str | bytes:
    """Text where it is some, as the contract takes it: UTF-8 without NUL."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return data if "\0" in text else text


def filter_options(command: Command) -> Command:
    """Which jobs; the command's function gets them as keywords for `filter_of`."""
    state_option = click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice(STATES, case_sensitive=False),
        metavar="STATE",
        help=f"In this state; may be repeated. One of {', '.join(STATES).lower()}.",
    )
    return filter_options_but_state(state_option(command))


def filter_options_but_state(command: Command) -> Command:
    """For commands that are about one state."""
    for option in reversed(
        [
            click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Of this queue; may be repeated."),
            click.option("--type", "types", multiple=True, metavar="TYPE", help="Of this type; may be repeated."),
            click.option("--user", "user", metavar="USER", help="Of this user."),
            click.option(
                "--label", "labels", multiple=True, type=label, metavar="KEY=VALUE", help="With each of these labels."
            ),
            click.option(
                "--created-after", type=when, metavar="TIME", help="At or after 2030-01-31T08:00:00Z, or '10m ago'."
            ),
            click.option("--created-before", type=when, metavar="TIME", help="Before it."),
        ]
    ):
        command = option(command)
    return command


def filter_of(options: dict[str, Any]) -> FilterFields:
    """Takes the filter's options out of `options`."""
    given: dict[str, Any] = {
        "queues": list(options.pop("queues")),
        "states": list(options.pop("states", ())),
        "types": list(options.pop("types")),
        "user_id": options.pop("user"),
        "labels": dict(options.pop("labels")),
        "create_time_after": options.pop("created_after"),
        "create_time_before": options.pop("created_before"),
    }
    where: FilterFields = {}
    where.update({name: value for name, value in given.items() if value})  # type: ignore[typeddict-item]  # its own keys
    return where
