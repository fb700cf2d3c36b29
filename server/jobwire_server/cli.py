"""The server's commands: `serve`, and for those who watch over it `health` and `fsck`. copies.py has those that copy.

They join the `jobwire` command by the entry points in pyproject.toml; `main` here is these alone.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import click

from jobwire_server import copies
from jobwire_server.config import DEFAULT_LISTEN, Config, ConfigError, read_limits, split_address
from jobwire_server.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNREACHABLE, EXIT_USAGE
from jobwire_server.options import OUTPUT, STORE, shown_password
from jobwire_server.progress import ProgressLine
from jobwire_server.service.principals import Role, entry, new_token
from jobwire_server.telemetry import logs

_HEALTH_TIMEOUT = 3.0
"""Seconds."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

log = logging.getLogger("jobwire")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The server of jobwire, by itself; reads no jobwire.toml, which the `jobwire` command does."""


@main.command()
@STORE
@click.option(
    "--listen",
    envvar="JOBWIRE_LISTEN",
    default=DEFAULT_LISTEN,
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Where to serve gRPC; port 0 takes a free one.",
)
@click.option(
    "--http",
    envvar="JOBWIRE_HTTP",
    default=None,
    show_envvar=True,
    metavar="HOST:PORT|off",
    help="Where to serve HTTP, the API as JSON; port 0 takes a free one.  [default: the host of --listen, its port +"
    " 1000]",
)
@click.option(
    "--processes",
    envvar="JOBWIRE_PROCESSES",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    show_envvar=True,
    help="Serve by so many processes behind one port of each kind, on Redis or Valkey: one for each core that is free.",
)
@click.option(
    "--insecure",
    envvar="JOBWIRE_INSECURE",
    is_flag=True,
    show_envvar=True,
    help="Serve on an address that others can reach without TLS or without a login.",
)
@click.option(
    "--tokens",
    envvar="JOBWIRE_TOKENS",
    type=click.Path(dir_okay=False),
    default="",
    show_envvar=True,
    metavar="FILE",
    help="Who may call, in TOML: `jobwire token new` makes its lines. Without it nobody has to say who he is.",
)
@click.option(
    "--tls-cert",
    envvar="JOBWIRE_TLS_CERT",
    type=click.Path(dir_okay=False),
    default="",
    show_envvar=True,
    metavar="FILE",
    help="Serve by TLS, gRPC and HTTP: our certificate in PEM, with those between it and its authority.",
)
@click.option(
    "--tls-key",
    envvar="JOBWIRE_TLS_KEY",
    type=click.Path(dir_okay=False),
    default="",
    show_envvar=True,
    metavar="FILE",
    help="Its key, in PEM and not encrypted.",
)
@click.option(
    "--tls-client-ca",
    envvar="JOBWIRE_TLS_CLIENT_CA",
    type=click.Path(dir_okay=False),
    default="",
    show_envvar=True,
    metavar="FILE",
    help="Let in only who shows a certificate that this one has signed.",
)
@click.option(
    "--reflection/--no-reflection",
    envvar="JOBWIRE_REFLECTION",
    default=None,
    show_envvar=True,
    help="Let grpcurl ask for the API.  [default: on where only this machine can reach the server]",
)
@click.option(
    "--drain-timeout",
    envvar="JOBWIRE_DRAIN_TIMEOUT",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="What calls under way are given at the end. A second Ctrl-C gives nothing.",
)
@click.option(
    "--webhook-secrets",
    envvar="JOBWIRE_WEBHOOK_SECRETS",
    type=click.Path(dir_okay=False),
    default="",
    show_envvar=True,
    metavar="FILE",
    help="Signing secrets of webhooks, in TOML: docs/webhooks.md.",
)
@click.option(
    "--webhook-allow",
    envvar="JOBWIRE_WEBHOOK_ALLOW",
    default="",
    show_envvar=True,
    metavar="NETWORKS",
    help="Networks that webhooks may reach beside the public addresses, such as 10.0.0.0/8,127.0.0.1.",
)
@click.option(
    "--limits",
    envvar="JOBWIRE_LIMITS",
    default="",
    show_envvar=True,
    metavar="NAME=N,…",
    help="Other limits than the default ones, by the names that GetServerInfo tells, such as max_payload_bytes=524288.",
)
@click.option(
    "--log-level",
    envvar="JOBWIRE_LOG_LEVEL",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    show_envvar=True,
)
@click.option(
    "--log-format",
    envvar="JOBWIRE_LOG_FORMAT",
    type=click.Choice(logs.FORMATS),
    default="console",
    show_default=True,
    show_envvar=True,
    help="For people, or an object of JSON a line for programs.",
)
def serve(
    store: str,
    listen: str,
    *,
    http: str | None,
    processes: int,
    insecure: bool,
    tokens: str,
    tls_cert: str,
    tls_key: str,
    tls_client_ca: str,
    reflection: bool | None,
    drain_timeout: float,
    webhook_secrets: str,
    webhook_allow: str,
    limits: str,
    log_level: str,
    log_format: str,
) -> None:
    """Serve jobs until SIGTERM or Ctrl-C.

    \b
    jobwire serve
    jobwire serve --store redis://127.0.0.1:6379/0 --listen 127.0.0.1:7272 --processes 4

    --store auto takes the Redis of JOBWIRE_REDIS_URL, else redis://127.0.0.1:6379/0, if it answers within a second, and
    else the file; it says which.
    """
    logs.configure(log_level, log_format=log_format, several=processes > 1)
    if shown := shown_password("store"):
        log.warning(shown)
    from jobwire_server.choice import chosen  # the engines' own libraries, which no other command needs

    try:
        config = Config(
            store=chosen(store),
            listen=listen,
            http=http,
            processes=processes,
            insecure=insecure,
            tokens=tokens,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            reflection=reflection,
            drain_timeout=drain_timeout,
            webhook_secrets=webhook_secrets,
            webhook_allow=webhook_allow,
            limits=read_limits(limits),
        )
        if config.processes > 1:
            from jobwire_server.processes import serve_by_many  # it forks, so it comes before anything of gRPC's

            sys.exit(serve_by_many(config))
        from jobwire_server.serving import serve_alone

        sys.exit(serve_alone(config))
    except ConfigError as error:
        click.echo(f"jobwire: {error}", err=True)
        sys.exit(EXIT_USAGE)


@main.group()
def token() -> None:
    """Make tokens for those who may call a server."""


@token.command("new")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="What it is for; may be given several times.",
)
def token_new(name: str, roles: tuple[str, ...]) -> None:
    """Make a token for NAME.

    The lines for the file of `serve --tokens` go to standard output, the token itself to standard error: it is shown
    this once and kept nowhere, the file has its digest.

    \b
    jobwire token new mailer --role worker >>tokens.toml
    """
    made = new_token()
    try:
        lines = entry(name, [Role(role) for role in roles], made)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from None
    click.echo(f"The token of {name}, shown this once:\n{made}", err=True)
    click.echo(f"\n{lines}", nl=False)


@main.command()
@click.argument("address", envvar="JOBWIRE_ADDRESS", default=DEFAULT_LISTEN, metavar="[HOST:PORT]")
@click.option("--tls", envvar="JOBWIRE_TLS", is_flag=True, show_envvar=True, help="Ask by TLS; on by itself with --ca.")
@click.option(
    "--ca",
    envvar="JOBWIRE_CA",
    type=_FILE,
    default=None,
    show_envvar=True,
    metavar="FILE",
    help="What has signed the server's certificate, in PEM.  [default: the public authorities]",
)
@click.option(
    "--cert",
    envvar="JOBWIRE_CERT",
    type=_FILE,
    default=None,
    show_envvar=True,
    metavar="FILE",
    help="Your own certificate, where the server asks for one; with --key.",
)
@click.option(
    "--key", envvar="JOBWIRE_KEY", type=_FILE, default=None, show_envvar=True, metavar="FILE", help="Its key."
)
@click.option(
    "--server-name",
    envvar="JOBWIRE_SERVER_NAME",
    default="",
    show_envvar=True,
    metavar="NAME",
    help="A name in the server's certificate, where HOST is none of them.",
)
def health(address: str, *, tls: bool, ca: Path | None, cert: Path | None, key: Path | None, server_name: str) -> None:
    """Ask whether a server serves.

    Exit code 0 when it does, 3 when it does not or drains. HOST:PORT is by default JOBWIRE_ADDRESS, else
    127.0.0.1:7272.

    \b
    jobwire health && echo up
    jobwire health --ca ca.pem --server-name jobs.example.org
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        split_address(address)
    except ConfigError as error:
        raise click.BadParameter(str(error).removeprefix("--listen ")) from error
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together")
    pems = [None if path is None else path.read_bytes() for path in (ca, key, cert)]
    options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    with (
        grpc.secure_channel(address, grpc.ssl_channel_credentials(*pems), options)
        if tls or any(pems)
        else grpc.insecure_channel(address)
    ) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT)
        except grpc.RpcError as error:
            click.echo(f"{address} does not answer: {error.code().name}: {error.details()}", err=True)
            sys.exit(EXIT_UNREACHABLE)
    click.echo(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else EXIT_UNREACHABLE)


@main.command()
@STORE
@OUTPUT
@click.option(
    "--repair",
    is_flag=True,
    help="Mend what follows from the jobs themselves: where they stand, what is counted, what is listed.",
)
def fsck(store: str, output: str, *, repair: bool) -> None:
    """Read a whole store and name what is broken.

    That is everything in it that cannot be: every broken invariant. It never writes, and servers may be at work on the
    store. Exit code: 0 when nothing is broken, 1 when something is, 2 for a wrong option, 3 when the store cannot be
    read, or not be written for --repair.

    With --repair it mends what it can derive from the jobs' own records, which it never changes, then reads the store
    again: what was mended and what is left is said of each, and the exit code speaks of what is left. On Redis and
    Valkey servers may go on; on SQLite stop the server first. Keep a copy of the store before you repair it.

    \b
    jobwire fsck --store sqlite:////data/jobs.db
    jobwire fsck --store sqlite:////data/jobs.db --repair
    """
    if shown := shown_password("store"):
        click.echo(f"jobwire: {shown}", err=True)
    try:
        sys.exit(_fsck(store, repairs=repair, as_json=output == "json"))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)  # click's own is 1, which would say that something is broken


def _fsck(store: str, *, repairs: bool, as_json: bool) -> int:
    """Examines, mends if asked to, tells, and answers the exit code."""
    from jobwire_server import fsck
    from jobwire_server.app import inspection_of, repair_of
    from jobwire_server.store.base import CannotOpen, StoreUnavailable

    progress = ProgressLine()
    began = time.monotonic()
    try:
        inspection = inspection_of(store)
        examination, mended = inspection.run(progress), None
        if repairs:
            examination, mended = fsck.repaired(inspection, repair_of(store), examination, progress)
    except ConfigError as error:
        click.echo(f"jobwire: {error}", err=True)
        return EXIT_USAGE
    except (CannotOpen, StoreUnavailable) as error:
        click.echo(f"jobwire: {error}", err=True)
        return EXIT_UNREACHABLE
    finally:
        progress.clear()
    told = fsck.as_json if as_json else fsck.as_text
    click.echo(told(inspection.url, examination, time.monotonic() - began, mended))
    return EXIT_FAILED if examination.broken else 0


for command in (copies.migrate, copies.backup, copies.restore):
    main.add_command(command)
