"""docs/configuration.md is what the commands take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
from tests.cli.conftest import Shell

from jobwire_client.cli import main

PREFIX = "JOBWIRE_"
ROW = re.compile(r"^\| `(--[\w-]+)` \| `(\w+)` \| `(\w+)` \| `([^`]*)` \|", re.MULTILINE)


def page(repository: Path) -> str:
    return (repository / "docs" / "configuration.md").read_text(encoding="utf-8")


def options() -> Iterator[click.Option]:
    """Of every command, those that the environment can give."""
    ctx = click.Context(main)
    for name in main.list_commands(ctx):
        command = main.get_command(ctx, name)
        assert command is not None
        for param in command.params:
            if isinstance(param, click.Option) and param.envvar is not None:
                yield param


def test_the_page_lists_each_setting_under_its_flag_variable_and_toml_name(repository: Path) -> None:
    told = [(flag, variable, name) for flag, variable, name, _ in ROW.findall(page(repository))]
    taken = {(param.opts[0], str(param.envvar), str(param.envvar).removeprefix(PREFIX).lower()) for param in options()}
    assert sorted(told) == sorted(taken)


def test_the_page_tells_the_values_that_are_in_force_where_nothing_is_set(repository: Path, jobwire: Shell) -> None:
    del jobwire.environment["JOBWIRE_ADDRESS"]
    in_force = {each["name"]: each["value"] for each in jobwire("config", "show", "--output", "json").lines}
    assert {name: default for _, _, name, default in ROW.findall(page(repository))} == in_force


def test_the_toml_of_the_page_is_taken(repository: Path, jobwire: Shell) -> None:
    [block] = re.findall(r"^```toml\n(.*?)^```", page(repository), re.MULTILINE | re.DOTALL)
    (jobwire.folder / "jobwire.toml").write_text(block, encoding="utf-8")
    from_file = [
        each["name"] for each in jobwire("config", "show", "--output", "json").lines if "toml" in each["source"]
    ]
    assert len(from_file) == len(block.splitlines()) - 1  # JOBWIRE_ADDRESS wins over the address in it
