"""One server from its start to its end: the event loop, the greeting, the signals, the drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from jobwire_server.app import App
from jobwire_server.config import Config, is_loopback
from jobwire_server.exits import EXIT_FAILED, EXIT_INTERRUPTED
from jobwire_server.rpc.ports import CannotListen
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.info import StoreInfo
from jobwire_server.telemetry import traces
from jobwire_server.telemetry.metrics import Registry

_SAME_WISH: Final = 0.1
"""Seconds within which a second signal counts as the first."""

log = logging.getLogger("jobwire")


def serve_alone(
    config: Config,
    *,
    announce: Callable[[str], None] = click.echo,
    parent: int | None = None,
    metrics: Registry | None = None,
) -> int:
    """Serves until SIGTERM or Ctrl-C, then drains; a second one ends it at once. Answers the exit code.

    `announce` is given what to tell people when it serves. `parent`: a pipe that ends with the process that this one
    must not outlive. `metrics` where they are shared with other processes.
    """
    _collect_rarely()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config, announce, parent, metrics))


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


async def _serve(config: Config, announce: Callable[[str], None], parent: int | None, metrics: Registry | None) -> int:

    # Before anyone can know that we are there: a signal right after the greeting must drain, too.
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    if parent is not None:
        loop.add_reader(parent, _heed_the_end_of, parent, loop, asked)

    app = App(config, metrics, traces.from_environment())
    try:
        address = await app.start()
    except (CannotOpen, CannotListen) as error:
        click.echo(f"jobwire: {error}", err=True)
        return EXIT_FAILED
    announce(_greeting(address, app.http_address, config, await app.store.info()))

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


def _heed_the_end_of(parent: int, loop: asyncio.AbstractEventLoop, asked: asyncio.Event) -> None:
    """The parent is no more, however it ended: nobody is left who could stop us."""
    loop.remove_reader(parent)
    log.warning("the parent process has ended")
    asked.set()


def _greeting(address: str, http: str | None, config: Config, info: StoreInfo) -> str:
    """The address alone on the first line, for programs; then what a newcomer needs next."""
    promise = {
        "fsynced": "an OK means it is on the disk",
        "everysec": "on the disk within a second or two of an OK",
        "replicated": "an OK means that replicas have it too",
        "none": "not kept on any disk",
    }
    lines = [
        f"listening on {address}",
        *([] if http is None else [f"dashboard    {'https' if config.tls_cert else 'http'}://{http}"]),
        f"store        {info.url}  ({info.engine}; {promise.get(info.durability, info.durability)})",
    ]
    if config.insecure and (config.is_open or (http is not None and not is_loopback(http))):
        lines += ["", f"WARNING: {_danger(config)}"] if config.missing else []
    here = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
    folder = Path(sys.prefix).parent  # a checkout has its environment in .venv, and examples beside it
    if config.serves_reflection:
        grpcurl = _shown(Path(sys.prefix) / "bin" / "grpcurl", otherwise="grpcurl")
        grpcurl += f" -cacert {config.tls_cert}" if config.tls_cert else " -plaintext"
        if config.tls_client_ca:
            grpcurl += " -cert YOURS.pem -key YOURS.key"
        elif config.tokens:
            grpcurl += " -expand-headers -H 'authorization: Bearer ${TOKEN}'"  # exported, it stays out of `ps`
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
    if not config.tls_cert and not config.tokens and (example := folder / "examples" / "python" / "worker.py").exists():
        python = _shown(Path(sys.executable), otherwise=sys.executable)
        lines += ["", "A worker in Python:", f"  {python} {_shown(example, otherwise=str(example))} {here}"]
    lines += ["", "Stop with Ctrl-C."]
    return "\n".join(lines)


def _danger(config: Config) -> str:
    if config.has_login:
        return "no TLS: who listens on the way reads all, tokens included."
    return f"{'' if config.tls_cert else 'no TLS and '}no login: whoever reaches this port can do anything."


def _shown(path: Path, *, otherwise: str) -> str:
    """A path as one would type it here, when it is there."""
    if not path.exists():
        return otherwise
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
