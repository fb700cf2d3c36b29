"""Options that several commands of the server have."""

from __future__ import annotations

from typing import Final

import click
from click.core import ParameterSource

from jobwire_server.config import DEFAULT_STORE

STORE: Final = click.option(
    "--store",
    envvar="JOBWIRE_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="Where jobs are kept: sqlite:///FILE (four slashes for an absolute path), redis://[user:password@]HOST:PORT/DB"
    " or rediss://…, Redis 7.0 or Valkey 7.2 at least, redis+sentinel://HOST:PORT,…/SERVICE, redis+cluster://HOST:PORT,…"
    " or memory:// to keep nothing. A password belongs into JOBWIRE_STORE: everybody on this machine can read a command"
    " line.",
)

OUTPUT: Final = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For people, or programs."
)


def shown_password(*names: str) -> str:
    """What to warn of: one of these options was given on the command line, with a password; else nothing."""
    context = click.get_current_context()
    for name in names:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        option = next(param for param in context.command.params if param.name == name)
        url = str(context.params[name])
        user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
        if given and (":" in user or "sentinel_password=" in url):
            return f"the password in {option.opts[0]} can be read by everybody on this machine: use {option.envvar}"
    return ""
