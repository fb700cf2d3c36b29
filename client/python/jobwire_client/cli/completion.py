"""`jobwire completion`: the shell completes commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands and options of jobwire.

    \b
    jobwire completion bash >> ~/.bashrc
    jobwire completion zsh >> ~/.zshrc
    jobwire completion fish > ~/.config/fish/completions/jobwire.fish
    """
    made = get_completion_class(shell)
    assert made is not None, "click knows the three"
    click.echo(made(ctx.find_root().command, {}, "jobwire", "_JOBWIRE_COMPLETE").source())
