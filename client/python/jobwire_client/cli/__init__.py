"""The `jobwire` command. One file per family of commands; importing any of them imports neither grpc nor rich.

The server's commands join by the entry-point group `jobwire.commands`, so that the client never imports the server.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

import click

from jobwire_client.cli import exits, settings

_FAMILIES: Final = {
    "Jobs": {
        "create": "create",
        "get": "look",
        "list": "look",
        "count": "look",
        "why": "why",
        "wait": "follow",
        "watch": "follow",
        "update": "edit",
        "cancel": "steer",
        "retry": "steer",
        "delete": "steer",
        "recover": "recover",
        "dead": "dead",
    },
    "Workers": {"work": "work", "workers": "workers", "drain": "workers"},
    "Queues": {
        "stats": "stats",
        "top": "stats",
        "queues": "queues",
        "queue": "queue",
        "pause": "queues",
        "resume": "queues",
        "purge": "queue",
    },
    "Measuring": {"bench": "bench"},
    "Settings": {"config": "config", "completion": "completion"},
}
"""Each command and the file in this folder that holds it."""

_JOINED: Final = "Server"
"""The heading of what entry points bring."""


class _Commands(click.Group):
    """Imports a command's file when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self._families().values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for names in _FAMILIES.values():
            if cmd_name in names:
                module = import_module(f"{__name__}.{names[cmd_name]}")
                command = getattr(module, f"{cmd_name}_command")
                assert isinstance(command, click.Command)
                return command
        found = {point.name: point for point in _joined()}.get(cmd_name)
        return _load(found) if found else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            names = self.list_commands(ctx)
            if args and args[0] not in names and (near := settings.nearest(args[0], names)):
                raise click.UsageError(f"{error.message} Did you mean {near!r}?", ctx) from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(exits.Exit.INTERRUPTED) from None
        except ModuleNotFoundError as error:
            if error.name and error.name.partition(".")[0] in {"jobwire", "jobwire_client"}:
                raise  # ours: a bug, not a package that was left out
            click.echo(f"jobwire: this needs {error.name}: pip install 'jobwire[server,cli]'", err=True)
            raise click.exceptions.Exit(exits.Exit.FAILED) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        families = self._families()
        width = max(len(name) for names in families.values() for name in names)
        for heading, names in families.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None:
                    short = command.get_short_help_str(formatter.width - width - 6)
                    rows.append((name.ljust(width), short))
            with formatter.section(heading):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in exits.Exit])
        with formatter.section("Settings"):
            formatter.write_text(
                "A flag wins over the environment (JOBWIRE_ADDRESS), that over jobwire.toml (address = …), that over"
                " the default. `jobwire config show` tells which value comes from where."
            )

    @staticmethod
    def _families() -> dict[str, list[str]]:
        families = {heading: list(names) for heading, names in _FAMILIES.items()}
        if joined := [point.name for point in _joined()]:
            families[_JOINED] = joined
        return families


def _joined() -> list[EntryPoint]:
    return sorted(entry_points(group="jobwire.commands"), key=lambda point: point.name)


def _load(point: EntryPoint) -> click.Command:
    command = point.load()
    assert isinstance(command, click.Command)
    return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="jobwire", message="jobwire %(version)s")
@click.option(
    "--config",
    envvar=settings.CONFIG_VARIABLE,
    show_envvar=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"Settings in TOML.  [default: {settings.FILE_NAME} in the working directory, when there is one]",
)
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    """jobwire: a job server that any language can use, over gRPC.

    \b
    jobwire serve                                   start a server
    jobwire create '{"to": "ann"}' --type mail      hand it a job
    jobwire work --exec ./send-mail                 run the jobs
    """
    file = settings.read(ctx, config)
    ctx.obj = file
    ctx.default_map = settings.default_map(ctx, file)
