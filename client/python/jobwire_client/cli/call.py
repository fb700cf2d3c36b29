"""What every command that calls a server shares: where it is, how long to wait, and in which form to answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobwire_client.cli.exits import Exit, of_error, sentence

if TYPE_CHECKING:
    from jobwire_client import Client, JobwireError
    from jobwire_client._channel import ConnectOptions

DEFAULT_ADDRESS: Final = "127.0.0.1:7272"
DEFAULT_TIMEOUT: Final = 5.0
"""Seconds. Less than the library's: somebody sits there."""

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_CONNECTION: Final = (
    click.option(
        "--address",
        envvar="JOBWIRE_ADDRESS",
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="Where the server is.",
    ),
    click.option(
        "--tls",
        envvar="JOBWIRE_TLS",
        is_flag=True,
        show_envvar=True,
        help="Call by TLS; on by itself with --ca or --cert.",
    ),
    click.option(
        "--ca",
        envvar="JOBWIRE_CA",
        type=_FILE,
        default=None,
        show_envvar=True,
        metavar="FILE",
        help="What has signed the server's certificate, in PEM.  [default: the public authorities]",
    ),
    click.option(
        "--cert",
        envvar="JOBWIRE_CERT",
        type=_FILE,
        default=None,
        show_envvar=True,
        metavar="FILE",
        help="Your own certificate, where the server asks for one; with --key.",
    ),
    click.option(
        "--key", envvar="JOBWIRE_KEY", type=_FILE, default=None, show_envvar=True, metavar="FILE", help="Its key."
    ),
    click.option(
        "--token-file",
        envvar="JOBWIRE_TOKEN_FILE",
        type=_FILE,
        default=None,
        show_envvar=True,
        metavar="FILE",
        help="Holds your token, where the server asks for one.",
    ),
)


@dataclass(frozen=True, slots=True)
class Call:
    """How the user wants this command to call and to answer."""

    address: str
    timeout: float
    is_json: bool
    connect: ConnectOptions

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client. What the server refuses ends the command, with the reason and what to do next."""
        from jobwire_client import Client, JobwireError

        try:
            client = Client(self.address, timeout=self.timeout, **self.connect)
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


def connects(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --address and whatever else it takes to reach a server; its function gets `address` and
    `connect`."""

    @functools.wraps(function)
    def with_connect(
        *words: Any,
        tls: bool,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        token_file: Path | None,
        **rest: Any,
    ) -> None:
        connect: ConnectOptions = {}
        if tls:
            connect["tls"] = True
        if ca is not None:
            connect["ca"] = ca
        if cert is not None:
            connect["cert"] = cert
        if key is not None:
            connect["key"] = key
        if token_file is not None:
            connect["token"] = token_file.read_text(encoding="utf-8").strip()
        function(*words, connect=connect, **rest)

    for option in reversed(_CONNECTION):
        with_connect = option(with_connect)
    return with_connect


def calls_server(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --address, --timeout and --output; its function gets them as one `Call`, first."""

    @connects
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
    def with_call(*, address: str, connect: ConnectOptions, timeout: float, output: str, **options: Any) -> None:
        function(Call(address, timeout, output == "json", connect), **options)

    return with_call
