"""`jobwire config show`."""

from __future__ import annotations

import click

from jobwire_client.cli import settings, show


@click.group("config")
def config_command() -> None:
    """Tell which settings are in force."""


@config_command.command("show")
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For people, or programs."
)
@click.pass_context
def show_command(ctx: click.Context, output: str) -> None:
    """Show every setting in force and where it comes from; passwords are masked.

    A flag on a command wins over all of it.

    \b
    jobwire config show
    jobwire --config staging.toml config show --output json
    """
    root = ctx.find_root()
    found = settings.effective(root, root.obj)
    if output == "json":
        for each in found:
            show.line({"name": each.name, "value": each.value, "source": each.source})
    else:
        show.table(("SETTING", "VALUE", "FROM"), [(each.name, each.value, each.source) for each in found])
