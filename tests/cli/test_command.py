"""The command as a whole: what it is made of, what its manual says of it, and what it does not load."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jobwire.v1.job_pb2 import JobState
from jobwire_client import DEFAULT_TARGET
from jobwire_client.cli import call, main, values
from jobwire_client.cli.exits import Exit
from jobwire_client.models import state_name
from jobwire_server import exits as server
from jobwire_server.config import DEFAULT_LISTEN


def commands() -> dict[str, click.Command]:
    ctx = click.Context(main)
    found = {name: main.get_command(ctx, name) for name in main.list_commands(ctx)}
    return {name: command for name, command in found.items() if command is not None}


def test_the_manual_lists_the_commands_and_exit_codes_of_the_code(repository: Path) -> None:
    manual = (repository / "docs" / "command.md").read_text(encoding="utf-8")
    before, _, rest = manual.partition("## Exit codes")
    assert re.findall(r"^\| `(\w+)` \|", before, re.MULTILINE) == list(commands())
    codes = rest.partition("\n## ")[0]
    assert re.findall(r"^\| (\d+) \| (.+) \|$", codes, re.MULTILINE) == [(str(int(e)), e.meaning) for e in Exit]


def test_server_and_client_mean_the_same_by_an_exit_code() -> None:
    theirs = (server.EXIT_FAILED, server.EXIT_USAGE, server.EXIT_UNREACHABLE, server.EXIT_INTERRUPTED)
    assert theirs == (Exit.FAILED, Exit.USAGE, Exit.UNREACHABLE, Exit.INTERRUPTED)


def test_what_is_spelled_twice_to_load_less_is_the_same() -> None:
    assert tuple(state_name(state) for state in JobState.values() if state) == values.STATES
    assert call.DEFAULT_ADDRESS == DEFAULT_TARGET == DEFAULT_LISTEN


@pytest.mark.parametrize("name", commands())
def test_each_help_shows_an_example(name: str) -> None:
    shown = click.Context(commands()[name], info_name=name, parent=click.Context(main, info_name="jobwire"))
    group = commands()[name]
    examples = shown.get_help().partition("Options:")[0]
    if isinstance(group, click.Group):
        examples = "\n".join(each.help or "" for each in group.commands.values())
    assert re.search(rf"^ *jobwire {name}\b", examples, re.MULTILINE)


def test_help_loads_neither_grpc_nor_rich() -> None:
    program = (
        "import sys\n"
        "from jobwire_client.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "assert not {'grpc', 'rich', 'google'} & set(sys.modules), 'loaded'\n"
    )
    ran = python("-c", program)
    assert ran.returncode == 0, ran.stderr
    assert "Exit codes" in ran.stdout


def test_without_its_extra_the_command_says_what_to_install() -> None:
    without_click = "import sys; sys.modules['click'] = None; from jobwire_client.__main__ import main; main()"
    ran = python("-c", without_click)
    assert ran.returncode == 1
    assert "pip install 'jobwire[cli]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_package_is_the_command_too() -> None:
    assert "jobwire serve" in python("-m", "jobwire_client", "--help").stdout


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
