"""What every command that calls a server shares: where it is, how long to wait, and in which form to answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from jobwire_client.cli.exits import Exit, of_error, sentence

if TYPE_CHECKING:
    from jobwire_client import Client, JobwireError

DEFAULT_ADDRESS: Final = "127.0.0.1:7272"
DEFAULT_TIMEOUT: Final = 5.0
"""Seconds. Less than the library's: somebody sits there."""

address_option: Final = click.option(
    "--address",
    envvar="JOBWIRE_ADDRESS",
    default=DEFAULT_ADDRESS,
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Where the server is.",
)


@dataclass(frozen=True, slots=True)
class Call:
    """How the user wants this command to call and to answer."""

    address: str
    timeout: float
    is_json: bool

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client. What the server refuses ends the command, with the reason and what to do next."""
        from jobwire_client import Client, JobwireError

        try:
            client = Client(self.address, timeout=self.timeout)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--address") from None
        with client:
            try:
                yield client
            except JobwireError as error:
                raise click.exceptions.Exit(self.tell(error)) from None
            except ValueError as error:  # what the client cannot even write down, such as a year past 9999
                raise click.UsageError(str(error)) from None

    def tell(self, error: JobwireError) -> Exit:
        """Says on stderr what went wrong; the exit code for it."""
        click.echo(sentence(error, self.address), err=True)
        return of_error(error)


def calls_server(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --address, --timeout and --output; its function gets them as one `Call`, first."""

    @address_option
    @click.option(
        "--timeout",
        envvar="JOBWIRE_TIMEOUT",
        type=click.FloatRange(0, 3600, min_open=True),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        show_envvar=True,
        metavar="SECONDS",
        help="Of each call, repeats included.",
    )
    @click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="For people, or programs.",
    )
    @functools.wraps(function)
    def with_call(*, address: str, timeout: float, output: str, **options: Any) -> None:
        function(Call(address, timeout, output == "json"), **options)

    return with_call
