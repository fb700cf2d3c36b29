"""`jobwire migrate`, `backup` and `restore`: a whole store is copied, and what arrived is counted there."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from jobwire_client.cli.call import DEFAULT_TIMEOUT, Call, connects
from jobwire_server.config import ConfigError
from jobwire_server.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNREACHABLE, EXIT_USAGE
from jobwire_server.options import OUTPUT, STORE, shown_password
from jobwire_server.progress import ProgressLine, number_of, printable

if TYPE_CHECKING:
    from jobwire.v1.admin_service_pb2 import BackupContents
    from jobwire_client import ConnectOptions
    from jobwire_server.store.copying import Copied, Totals

_SHOWN = 10
"""What could not be read, so many of it, is shown to people."""


@click.command()
@click.option(
    "--from",
    "origin",
    envvar="JOBWIRE_FROM",
    required=True,
    show_envvar=True,
    metavar="URL",
    help="The store to read; nothing in it changes, and no server may be at work on it.",
)
@click.option(
    "--to",
    "target",
    envvar="JOBWIRE_TO",
    required=True,
    show_envvar=True,
    metavar="URL",
    help="The store to fill; it must hold nothing. URLs as for `jobwire serve --store`; passwords belong into the"
    " variables.",
)
@OUTPUT
def migrate(origin: str, target: str, output: str) -> None:
    """Copy a whole store into another one, of either kind.

    All of it comes along: jobs in every state with their order, results and history, leases (a worker settles in the
    new store what it claimed in the old one), queues, workers, request ids. Then the new store counts what it holds.
    Stop all servers first. A copy that was cut off leaves a store that no server opens; run it again, and it starts
    over.

    Exit code: 0 when all has arrived, 1 when something could not be read or the counts differ, 2 for a wrong option, 3
    when a store cannot be read or written, is at work, or is not empty.

    \b
    jobwire migrate --from sqlite:////data/jobs.db --to redis://127.0.0.1:6379/0
    """
    from jobwire_server.app import source_of, target_of
    from jobwire_server.store.copying import copy

    _warn("origin", "target")

    def migrated(progress: ProgressLine) -> Told:
        source, into = source_of(origin, at_rest=True), target_of(target)
        return source.url, into.url, copy(source, into, progress)

    sys.exit(_run(migrated, ProgressLine("copied"), as_json=output == "json"))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE
@connects
@OUTPUT
@click.pass_context
def backup(
    context: click.Context, file: Path, *, store: str, address: str, connect: ConnectOptions, output: str
) -> None:
    """Write a whole store into FILE, while servers are at work on it.

    The store is read by this command itself; with --address the server there reads its store and sends the backup,
    which is the way to one in memory, and to one that cannot be reached from here. It takes the role admin.

    FILE becomes a SQLite store of jobwire's, whatever the store stands on: `fsck` reads it, `restore` and `migrate`
    copy it, `serve` serves it. It appears when it is whole and safe on the disk; one that is there already is not
    replaced.

    Exit code: 0 when all is in it, 1 when something could not be read, 2 for a wrong option, 3 when the store cannot be
    read or FILE cannot be written.

    \b
    jobwire backup jobs-$(date +%F).db --store sqlite:////data/jobs.db
    jobwire backup jobs-$(date +%F).db --address jobs.example.org:7272 --tls
    """
    from jobwire_server.app import back_up, inspection_of

    as_json = output == "json"
    given = {name: context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("store", "address")}
    if all(given.values()):
        raise click.UsageError("--store reads the store from here, --address asks a server: name one of them")
    if given["address"]:
        call = Call(address, DEFAULT_TIMEOUT, as_json, connect)
        sys.exit(
            _run(lambda progress: _fetched(call, file, progress), ProgressLine("fetched", "kilobyte"), as_json=as_json)
        )
    _warn("store")

    def backed_up(progress: ProgressLine) -> Told:
        copied = back_up(store, file, progress)
        return inspection_of(store).url, str(file), copied

    is_by_pages = store.startswith("sqlite:")
    sys.exit(_run(backed_up, ProgressLine("copied", "page" if is_by_pages else "job"), as_json=as_json))


def _fetched(call: Call, file: Path, progress: ProgressLine) -> Told:
    """Has a server make the backup."""
    from jobwire_server.app import contents_of
    from jobwire_server.store.whole_file import whole_file

    with whole_file(file.resolve()) as part:
        with call.client() as client, part.open("wb") as into:

            def write(piece: bytes) -> None:
                into.write(piece)
                progress(into.tell() // 1000)

            said = client.backup(write)
        return call.address, str(file), _compared(said, contents_of(part)).checked()


def _compared(said: BackupContents, arrived: Copied) -> Copied:
    """What the server says that it has sent, beside what is in the file."""
    from jobwire_client import state_name
    from jobwire_server.domain.job import JobState
    from jobwire_server.store.copying import Copied, Totals

    states = Counter({JobState(state_name(each.state).lower()): each.count for each in said.counts})
    read = Totals(states, said.queue_count, said.worker_count)
    return Copied(read, said.request_id_count, arrived.counted, [*said.unreadable], said.unreadable_count)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE
@OUTPUT
def restore(file: Path, store: str, output: str) -> None:
    """Make an empty store what it was when FILE was written by `jobwire backup`.

    FILE is read first, as `fsck` does, and refused where anything in it is broken. Then it is copied as by `migrate`:
    stop all servers first.

    Exit code: as of `migrate`; 1 also when FILE is broken, and then nothing was written.

    \b
    jobwire restore jobs-2030-01-31.db --store redis://127.0.0.1:6379/0
    """
    from jobwire_server.app import backup_in, target_of
    from jobwire_server.store.copying import copy

    _warn("store")

    def restored(progress: ProgressLine) -> Told:
        target = target_of(store)
        inspection, source = backup_in(file)
        if broken := inspection.run(progress).broken:
            what = number_of(len(broken), "invariant")
            raise _Broken(f"{file}: {what} broken, so that nothing was written; `jobwire fsck` says which")
        return source.url, target.url, copy(source, target, progress)

    sys.exit(_run(restored, ProgressLine(), as_json=output == "json"))


class _Broken(Exception):
    """A backup that is not sound; the text says so."""


def _warn(*options: str) -> None:
    if shown := shown_password(*options):
        click.echo(f"jobwire: {shown}", err=True)


Told = tuple[str, str, "Copied"]
"""From where, to where, passwords masked, and what became of it."""


def _run(make: Callable[[ProgressLine], Told], progress: ProgressLine, *, as_json: bool) -> int:
    """Copies, tells, and answers the exit code."""
    from jobwire_server.store.base import CannotOpen, StoreUnavailable

    began = time.monotonic()
    try:
        origin, target, copied = make(progress)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ConfigError, CannotOpen, StoreUnavailable, _Broken) as error:
        progress.clear()
        click.echo(f"jobwire: {error}", err=True)
        return {ConfigError: EXIT_USAGE, _Broken: EXIT_FAILED}.get(type(error), EXIT_UNREACHABLE)
    finally:
        progress.clear()
    told = _as_json if as_json else _as_text
    click.echo(told(origin, target, copied, time.monotonic() - began))
    return 0 if copied.is_equal and not copied.unreadable_count else EXIT_FAILED


def _as_json(origin: str, target: str, copied: Copied, seconds: float) -> str:
    """One object; `counted` is what the target says."""
    said = {
        "from": origin,
        "to": target,
        "equal": copied.is_equal,
        "read": _totals(copied.read) | {"request_ids": copied.requests},
        "counted": _totals(copied.counted),
        "unreadable": {"count": copied.unreadable_count, "first": copied.unreadable},
        "seconds": round(seconds, 3),
    }
    return json.dumps(said, indent=2)


def _totals(totals: Totals) -> dict[str, object]:
    states = {str(state): number for state, number in sorted(totals.states.items())}
    return {"jobs": totals.jobs, "states": states, "queues": totals.queues, "workers": totals.workers}


def _as_text(origin: str, target: str, copied: Copied, seconds: float) -> str:
    return "\n".join(_lines(origin, target, copied, seconds))


def _lines(origin: str, target: str, copied: Copied, seconds: float) -> Iterator[str]:
    jobs = copied.read.jobs
    rate = f"{jobs / max(seconds, 0.001):,.0f} a second"
    yield f"{origin} → {target}: {number_of(jobs, 'job')} in {seconds:.1f} s, {rate}"
    yield ""
    yield f"{'':<12}{'read':>14}{'in the target':>16}"
    for state in sorted({*copied.read.states, *copied.counted.states}):
        yield f"{state:<12}{copied.read.states[state]:>14,}{copied.counted.states[state]:>16,}"
    yield f"{'jobs':<12}{jobs:>14,}{copied.counted.jobs:>16,}"
    yield f"{'queues':<12}{copied.read.queues:>14,}{copied.counted.queues:>16,}"
    yield f"{'workers':<12}{copied.read.workers:>14,}{copied.counted.workers:>16,}"
    yield f"{'request ids':<12}{copied.requests:>14,}"
    if copied.unreadable_count:
        yield ""
        yield f"{copied.unreadable_count:,} could not be read and stayed behind:"
        yield from (f"  {printable(what)}" for what in copied.unreadable[:_SHOWN])
        if copied.unreadable_count > _SHOWN:
            yield f"  and {copied.unreadable_count - _SHOWN:,} more"
    if not copied.is_equal:
        yield ""
        yield "The target does not hold what was read, and no server opens it: run this again, which starts over."
