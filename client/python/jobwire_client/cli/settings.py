"""Settings: flag > environment > TOML > default.

A setting is an option of any command that can be given as JOBWIRE_NAME; in TOML it is `name`. So there is one list of
them, the options themselves, the server's included.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

FILE_NAME: Final = "jobwire.toml"
PREFIX: Final = "JOBWIRE_"
CONFIG_VARIABLE: Final = "JOBWIRE_CONFIG"


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a TOML file says, checked. Without a file `path` is None."""

    path: Path | None
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Effective:
    """A setting in force."""

    name: str
    value: str
    source: str
    """The flag, the variable, the file, or `default`."""


def read(ctx: click.Context, path: Path | None) -> SettingsFile:
    """The file named, else that of the working directory, else none. UsageError for what cannot be in it."""
    path = path or Path(FILE_NAME)
    if not path.is_file():
        return SettingsFile(None, {})
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"{path}: {error}") from None
    known = dict(_settings(ctx))
    for name, value in values.items():
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(sorted(known))}"
            raise click.UsageError(f"{path}: there is no setting {name!r}; {hint}")
        try:
            known[name].type_cast_value(ctx, value)
        except click.BadParameter as error:
            raise click.UsageError(f"{path}: {name}: {error.message}") from None
    return SettingsFile(path, values)


def default_map(ctx: click.Context, file: SettingsFile) -> dict[str, dict[str, Any]]:
    """The file's values as click's defaults: by command, under each parameter's own name."""
    if not file.values:
        return {}
    return {
        command_name: {
            str(param.name): file.values[name] for name, param in _of_command(command) if name in file.values
        }
        for command_name, command in _commands(ctx)
    }


def effective(ctx: click.Context, file: SettingsFile) -> list[Effective]:
    """Every setting as a command without flags would find it; passwords masked."""
    found = []
    for name, param in sorted(dict(_settings(ctx)).items()):
        if variable := _variable(param):
            value, source = os.environ[variable], variable
        elif name in file.values:
            value, source = _shown(file.values[name]), str(file.path)
        else:
            # One that must be given has none: click answers a mark of its own for it.
            value, source = _shown(None if param.required else param.get_default(ctx)), "default"
        found.append(Effective(name, masked(value), source))
    return found


def masked(value: str) -> str:
    """A URL without its passwords; anything else as it is."""
    try:
        password = urlsplit(value).password
    except ValueError:
        return "***"  # no URL to take apart, so nobody can say where the secret in it is
    value = re.sub(r"(?<=[?&]sentinel_password=)[^&]*", "***", value)
    return value.replace(f":{password}@", ":***@") if password else value


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def _settings(ctx: click.Context) -> Iterator[tuple[str, click.Parameter]]:
    for _, command in _commands(ctx):
        yield from _of_command(command)


def _commands(ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    assert isinstance(ctx.command, click.Group)
    for name in ctx.command.list_commands(ctx):
        if (command := ctx.command.get_command(ctx, name)) is not None:
            yield name, command


def _of_command(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
    for param in command.params:
        if isinstance(param.envvar, str) and param.envvar.startswith(PREFIX):
            yield param.envvar.removeprefix(PREFIX).lower(), param


def _variable(param: click.Parameter) -> str | None:
    """The variable that sets it, if it is there: click takes an empty one for none."""
    assert isinstance(param.envvar, str)
    return param.envvar if os.environ.get(param.envvar) else None


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case _:
            return str(value)
