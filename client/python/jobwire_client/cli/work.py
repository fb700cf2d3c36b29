"""`jobwire work`: a worker whose handler is a command of the user's."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import click

from jobwire_client.cli.call import DEFAULT_TIMEOUT, connects
from jobwire_client.cli.exits import Exit
from jobwire_client.cli.values import duration

if TYPE_CHECKING:
    from datetime import timedelta

    from jobwire_client._channel import ConnectOptions


@click.command("work")
@click.option("--exec", "command", required=True, metavar="COMMAND", help="Run for each job, without a shell.")
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Visited in this order.  [default: default]")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True, help="Jobs at a time.")
@click.option(
    "--lease",
    type=duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long a job stays here when this worker falls silent.",
)
@click.option(
    "--grace",
    type=duration,
    default="20s",
    show_default=True,
    metavar="DURATION",
    help="What running commands are given to finish after Ctrl-C.",
)
@click.option(
    "--kill-after",
    type=duration,
    default="3s",
    show_default=True,
    metavar="DURATION",
    help="From SIGTERM to SIGKILL, for a command that must stop.",
)
@click.option(
    "--release-delay",
    type=duration,
    default="5s",
    show_default=True,
    metavar="DURATION",
    help="How long a job waits after exit code 75.",
)
@click.option("--id", "worker_id", default="", help="Unique among workers.  [default: host, pid and something random]")
@click.option("--wait-for-server", is_flag=True, help="Keep trying when no server answers at the start.")
@click.option("--quiet", is_flag=True, help="Log warnings only.")
@connects
def work_command(
    command: str,
    *,
    queues: tuple[str, ...],
    concurrency: int,
    lease: timedelta,
    grace: timedelta,
    kill_after: timedelta,
    release_delay: timedelta,
    worker_id: str,
    wait_for_server: bool,
    quiet: bool,
    address: str,
    connect: ConnectOptions,
) -> None:
    """Run a command for each job, until Ctrl-C.

    COMMAND runs the jobs of every type in the queues. It gets the payload on standard input, and what it prints is the
    result. Its exit code settles the job: 0 completes it, 75 gives it back to be tried later (no retry is spent), any
    other fails it, with the end of stderr as the error's message. A canceled job's command gets SIGTERM, then SIGKILL.

    In its environment: JOBWIRE_JOB_ID, JOBWIRE_JOB_ATTEMPT, JOBWIRE_JOB_FENCE, JOBWIRE_JOB_TYPE, JOBWIRE_JOB_QUEUE.

    \b
    jobwire work --exec ./send-mail --queue mail --concurrency 4
    jobwire work --exec 'sh -c "jq -r .text | tr a-z A-Z"'

    Ctrl-C or SIGTERM drains: nothing more is claimed, running commands have --grace. The same again stops at once. A
    server that goes away is waited for, and no running command is stopped by it.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.BadParameter(f"{command!r}: {error}", param_hint="--exec") from None
    if not words or shutil.which(words[0]) is None:
        raise click.BadParameter(f"{command!r}: there is no such command", param_hint="--exec")

    from jobwire_client import Client, DeadlineExceeded, InvalidField, JobwireError, Superseded, Unavailable, Worker
    from jobwire_client.cli.process import Command, WithoutTraceback

    # Before the first gRPC object: configuring logging later can deadlock with gRPC's own threads (grpc 43421).
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(message)s",
    )
    logging.getLogger("jobwire.worker").addFilter(WithoutTraceback())
    try:
        if not wait_for_server:
            # A worker reconnects for ever, which the first time would hide a mistake.
            with Client(address, timeout=DEFAULT_TIMEOUT, **connect) as client:
                client.server_info()
        worker = Worker(
            address,
            queues=queues,
            concurrency=concurrency,
            lease_duration=lease,
            grace=grace.total_seconds(),
            id=worker_id,
            **connect,
        )
        worker.default_handler(Command(words, dict(os.environ), kill_after.total_seconds(), release_delay))
        worker.run_forever()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from None
    except Superseded:
        click.echo(f"jobwire: another process works as {worker_id}\n  Give each its own --id, or none.", err=True)
        raise click.exceptions.Exit(Exit.CONFLICT) from None
    except (DeadlineExceeded, Unavailable):
        click.echo(
            f"jobwire: cannot reach {address}\n"
            "  Is it running there? Start one with `jobwire serve`, name another with --address, or wait for it with"
            " --wait-for-server.",
            err=True,
        )
        raise click.exceptions.Exit(Exit.UNREACHABLE) from None
    except InvalidField as error:
        click.echo(f"jobwire: {error.message}", err=True)
        raise click.exceptions.Exit(Exit.USAGE) from None
    except JobwireError as error:
        click.echo(f"jobwire: {error.message}", err=True)
        raise click.exceptions.Exit(Exit.FAILED) from None
