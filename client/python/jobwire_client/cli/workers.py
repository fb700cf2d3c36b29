"""`jobwire workers` and `drain`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.exits import Exit

if TYPE_CHECKING:
    from jobwire.v1.worker_pb2 import Worker

STATES: Final = ("IDLE", "BUSY", "QUIET", "LOST")


@click.command("workers")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES, case_sensitive=False),
    help="Only those in it; any number.",
)
@calls_server
def workers_command(call: Call, states: tuple[str, ...]) -> None:
    """List workers, with what they are up to.

    HOLDS is how many jobs it has, of the LIMIT that it asked for; BEAT how long ago its last heartbeat was. A worker is
    LOST when nothing was heard of it for a minute, and forgotten after an hour.

    \b
    jobwire workers
    jobwire workers --state lost --output json | jq -r .identity.id
    """
    from jobwire_client.models import worker_state_name

    with call.client() as client:
        workers = client.workers(states=[state.upper() for state in states])
    if call.is_json:
        for worker in workers:
            show.as_json(worker)
        return
    heads = ("WORKER", "STATE", "HOLDS", "LIMIT", "BEAT", "QUEUES", "VERSION", "")
    now = datetime.now(UTC)
    rows = [
        (
            worker.identity.id,
            worker_state_name(worker.state),
            f"{worker.held_count:,}",
            f"{worker.max_in_flight:,}" if worker.max_in_flight else "-",
            show.age(now - worker.beat_time.ToDatetime(UTC)),
            ", ".join(worker.queues) or "-",
            worker.identity.version or "-",
            _remark(worker),
        )
        for worker in workers
    ]
    show.table(heads, rows, numbers=("HOLDS", "LIMIT", "BEAT"))
    if not rows:
        click.echo("no such workers" if states else "no workers", err=True)


@click.command("drain")
@click.argument("worker_ids", nargs=-1, required=True, metavar="WORKER…")
@click.option("--terminate", is_flag=True, help="It ends when it has finished what it holds, or after its grace.")
@click.option("--undo", is_flag=True, help="Let it claim again.")
@calls_server
def drain_command(call: Call, worker_ids: tuple[str, ...], *, terminate: bool, undo: bool) -> None:
    """Give workers no more jobs. They finish what they hold.

    It holds at every server until it is undone, also when the worker comes back under its id.

    \b
    jobwire drain mailer-17
    jobwire drain mailer-17 --terminate
    jobwire drain mailer-17 --undo
    """
    from jobwire_client import JobwireError

    if terminate and undo:
        raise click.UsageError("--terminate and --undo are opposites: give one of them")
    directive = "NONE" if undo else "TERMINATE" if terminate else "QUIET"
    worst = Exit.OK
    with call.client() as client:
        for worker_id in worker_ids:
            try:
                worker = client.drain_worker(worker_id, directive)
            except JobwireError as error:
                worst = call.tell(error)
                continue
            if call.is_json:
                show.as_json(worker)
            else:
                click.echo(f"{worker.identity.id} {_told(worker)}")
    raise click.exceptions.Exit(worst)


def _told(worker: Worker) -> str:
    held = worker.held_count
    holds = "holds nothing" if held == 0 else f"holds {held:,} {'job' if held == 1 else 'jobs'}"
    match _directive(worker):
        case "TERMINATE":
            return f"gets no more jobs and is to end; it {holds}"
        case "QUIET":
            return f"gets no more jobs; it {holds}; `jobwire drain {worker.identity.id} --undo` lifts it"
    return f"claims again; it {holds}"


def _remark(worker: Worker) -> str:
    return "told to end" if _directive(worker) == "TERMINATE" else ""


def _directive(worker: Worker) -> str:
    from jobwire.v1.worker_pb2 import WorkerDirective

    return WorkerDirective.Name(worker.directive).removeprefix("WORKER_DIRECTIVE_")
