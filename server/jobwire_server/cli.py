"""The server's commands: `serve`, and for those who watch over it `health` and `fsck`.

They join the `jobwire` command by the entry points in pyproject.toml; `main` here is these three alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from jobwire_server.config import DEFAULT_LISTEN, DEFAULT_STORE, Config, ConfigError, split_address

if TYPE_CHECKING:
    from jobwire_server.store.base import StoreInfo

# As in the table of `jobwire --help`, which stands in jobwire_client.cli.exits; a test compares them.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
"""Of `fsck`, whose 1 says that something is broken: the store cannot be read. Of `health`: nobody serves there."""

EXIT_INTERRUPTED = 130
"""As a shell has it for a program that Ctrl-C ended."""

_HEALTH_TIMEOUT = 3.0
"""Seconds."""

_SAME_WISH = 0.1
"""Seconds within which a second signal counts as the first."""

log = logging.getLogger("jobwire")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The server of jobwire, by itself; reads no jobwire.toml, which the `jobwire` command does."""


_store_option = click.option(
    "--store",
    envvar="JOBWIRE_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="Where jobs are kept: sqlite:///FILE (four slashes for an absolute path), redis://[user:password@]HOST:PORT/DB"
    " or rediss://…, Redis 7.0 or Valkey 7.2 at least, or memory:// to keep nothing. A password belongs into"
    " JOBWIRE_STORE: everybody on this machine can read a command line.",
)


@main.command()
@_store_option
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
    "--insecure",
    envvar="JOBWIRE_INSECURE",
    is_flag=True,
    show_envvar=True,
    help="Serve on an address that others can reach, although there is no TLS and no login.",
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
    "--log-level",
    envvar="JOBWIRE_LOG_LEVEL",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    show_envvar=True,
)
def serve(
    store: str, listen: str, *, insecure: bool, reflection: bool | None, drain_timeout: float, log_level: str
) -> None:
    """Serve jobs until SIGTERM or Ctrl-C.

    \b
    jobwire serve
    jobwire serve --store redis://127.0.0.1:6379/0 --listen 127.0.0.1:7272
    """
    # Before the first gRPC object: configuring logging later can deadlock with gRPC's own threads (grpc 43421).
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    if _shows_password(store):
        log.warning(_PASSWORD_SHOWN)
    try:
        config = Config(
            store=store, listen=listen, insecure=insecure, reflection=reflection, drain_timeout=drain_timeout
        )
        _collect_rarely()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            sys.exit(runner.run(_serve(config)))
    except ConfigError as error:
        click.echo(f"jobwire: {error}", err=True)
        sys.exit(EXIT_USAGE)


_PASSWORD_SHOWN = "the password in --store can be read by everybody on this machine: use JOBWIRE_STORE"


def _shows_password(store: str) -> bool:
    source = click.get_current_context().get_parameter_source("store")
    return source is ParameterSource.COMMANDLINE and bool(urlsplit(store).password)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Where there is uvloop, its own: a single call costs the server a seventh less CPU. None = asyncio's own loop."""
    try:
        import uvloop
    except ImportError:  # it has no build for this machine
        return None
    return uvloop.new_event_loop


def _collect_rarely() -> None:
    """Lets the garbage collector look less often: a batch makes thousands of values that hold no cycle, and after every
    700 of them it would look through the newest. What is imported lives for ever and is looked at no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _serve(config: Config) -> int:
    """Serves until SIGTERM or Ctrl-C, then drains; a second one ends it at once. Answers the exit code."""
    from jobwire_server.app import App
    from jobwire_server.rpc.server import CannotListen
    from jobwire_server.store.base import CannotOpen

    # Before anyone can know that we are there: a signal right after the greeting must drain, too.
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)

    app = App(config)
    try:
        address = await app.start()
    except (CannotOpen, CannotListen) as error:
        click.echo(f"jobwire: {error}", err=True)
        return EXIT_FAILED
    click.echo(_greeting(address, config, await app.store.info()))

    stop_asked, broken = asyncio.create_task(asked.wait()), asyncio.create_task(app.broken())
    await asyncio.wait([stop_asked, broken], return_when=asyncio.FIRST_COMPLETED)
    has_failed = broken.done()
    if has_failed:
        log.critical("stopping: %s", app.failure or "a part of the server has failed, see above")
    else:
        log.info("draining; the same again stops at once")

    # GNU timeout and some shells signal the process and its group: the same wish, twice in an instant.
    await asyncio.sleep(_SAME_WISH)
    asked.clear()
    stopping, again = asyncio.create_task(app.stop()), asyncio.create_task(asked.wait())
    await asyncio.wait([stopping, again], return_when=asyncio.FIRST_COMPLETED)
    for task in (stop_asked, broken, again):
        task.cancel()
    if not stopping.done():
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping
        return EXIT_INTERRUPTED
    stopping.result()
    log.info("stopped")
    return EXIT_FAILED if has_failed else 0


def _greeting(address: str, config: Config, info: StoreInfo) -> str:
    """The address alone on the first line, for programs; then what a newcomer needs next."""
    promise = {
        "fsynced": "an OK means it is on the disk",
        "everysec": "on the disk within a second or two of an OK",
        "none": "not kept on any disk",
    }
    lines = [
        f"listening on {address}",
        f"store        {info.url}  ({info.engine}; {promise.get(info.durability, info.durability)})",
    ]
    if config.is_open:
        lines += ["", "WARNING: no TLS and no login: whoever reaches this port can do anything."]
    here = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
    folder = Path(sys.prefix).parent  # a checkout has its environment in .venv, and examples beside it
    if config.serves_reflection:
        grpcurl = _shown(Path(sys.prefix) / "bin" / "grpcurl", otherwise="grpcurl") + " -plaintext"
        lines += [
            "",
            "Create a job, then take it as its worker would (unsettled, it comes back after 30 s):",
            f"""  {grpcurl} -d '{{"job": {{"type": "hello", "payload": {{"text": "world"}}}}}}' \\""",
            f"    {here} jobwire.v1.JobService/CreateJob",
            f"""  {grpcurl} -d '{{"max_jobs": 1, "wait_timeout": "10s"}}' \\""",
            f"    {here} jobwire.v1.JobService/ClaimJob",
        ]
    else:
        lines += [
            "",
            "Reflection is off: grpcurl needs -import-path protos and the -proto files, or --reflection here.",
        ]
    if (example := folder / "examples" / "python" / "worker.py").exists():
        python = _shown(Path(sys.executable), otherwise=sys.executable)
        lines += ["", "A worker in Python:", f"  {python} {_shown(example, otherwise=str(example))} {here}"]
    lines += ["", "Stop with Ctrl-C."]
    return "\n".join(lines)


def _shown(path: Path, *, otherwise: str) -> str:
    """A path as one would type it here, when it is there."""
    if not path.exists():
        return otherwise
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@main.command()
@click.argument("address", envvar="JOBWIRE_ADDRESS", default=DEFAULT_LISTEN, metavar="[HOST:PORT]")
def health(address: str) -> None:
    """Ask whether a server serves.

    Exit code 0 when it does, 3 when it does not or drains. HOST:PORT is by default JOBWIRE_ADDRESS, else
    127.0.0.1:7272.

    \b
    jobwire health && echo up
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        split_address(address)
    except ConfigError as error:
        raise click.BadParameter(str(error).removeprefix("--listen ")) from error
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT)
        except grpc.RpcError as error:
            click.echo(f"{address} does not answer: {error.code().name}: {error.details()}", err=True)
            sys.exit(EXIT_UNREACHABLE)
    click.echo(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else EXIT_UNREACHABLE)


@main.command()
@_store_option
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For people, or programs."
)
def fsck(store: str, output: str) -> None:
    """Read a whole store and name what is broken.

    That is everything in it that cannot be: every broken invariant. It never writes, and servers may be at work on the
    store. Exit code: 0 when nothing is broken, 1 when something is, 2 for a wrong option, 3 when the store cannot be
    read.

    \b
    jobwire fsck --store sqlite:////data/jobs.db
    """
    if _shows_password(store):
        click.echo(f"jobwire: {_PASSWORD_SHOWN}", err=True)
    try:
        sys.exit(_fsck(store, as_json=output == "json"))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)  # click's own is 1, which would say that something is broken


def _fsck(store: str, *, as_json: bool) -> int:
    """Examines, tells, and answers the exit code."""
    from jobwire_server import fsck
    from jobwire_server.app import inspection_of
    from jobwire_server.store.base import CannotOpen, StoreUnavailable

    progress = fsck.ProgressLine()
    began = time.monotonic()
    try:
        inspection = inspection_of(store)
        examination = inspection.run(progress)
    except ConfigError as error:
        click.echo(f"jobwire: {error}", err=True)
        return EXIT_USAGE
    except (CannotOpen, StoreUnavailable) as error:
        click.echo(f"jobwire: {error}", err=True)
        return EXIT_UNREACHABLE
    finally:
        progress.clear()
    told = fsck.as_json if as_json else fsck.as_text
    click.echo(told(inspection.url, examination, time.monotonic() - began))
    return EXIT_FAILED if examination.broken else 0
