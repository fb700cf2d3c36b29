"""python -m examples.python.demo [--store URL] [--jobs N]

Exit code 0 only if every job that was created has ended as it should and none was completed twice, by the server's own
account and by what the workers noted; 1, with what is wrong, if not. Ctrl-C ends all of it, a second one at once.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from examples.python.demo.processes import Children
from examples.python.demo.screen import Screen, ends, print_totals
from examples.python.demo.store import CannotUse, OwnStore, own_store
from examples.python.demo.story import NotStarted, tell
from jobwire_client import JobwireError, state_name

LEAST_JOBS = 1000
"""With fewer the work may be over before the last fault."""
LOG_SHOWN = 4_000
"""Characters."""


async def run(store: OwnStore, count: int, folder: Path) -> int:
    """Runs the demo until its end or a signal; all children have ended then. The exit code."""
    log = folder / "log"
    servers, workers = Children(log), Children(log)
    task = asyncio.current_task()
    assert task is not None
    with Screen() as screen:
        is_stopping = False

        def stop() -> None:
            nonlocal is_stopping
            if is_stopping:
                workers.kill()
                servers.kill()
                return
            is_stopping = True
            task.cancel()
            screen.say("Stopping servers and workers; the same again kills them")

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        try:
            told = await tell(store, count, folder, screen, servers, workers)
        except NotStarted:
            return _give_up(["A server did not start."], log)
        except JobwireError as error:
            return _give_up([f"A call has failed: {error}"], log)
        except ExceptionGroup as group:  # of the tasks of the story
            failed, others = group.split(JobwireError)
            if failed is None or others is not None:
                raise
            return _give_up([f"A call has failed: {error}" for error in failed.exceptions], log)
    print_totals(told.found, told.faults, told.seconds)
    if told.wrong:
        return _give_up(told.wrong, log)
    states = ends(Counter(state_name(job.state) for job in told.found))
    print(f"All {len(told.found)} jobs have ended as they should: {states}.\nNone was lost, none was completed twice.")
    return 0


def _give_up(wrong: list[str], log: Path) -> int:
    """Says what is wrong; the exit code."""
    print("\n".join(["The demo has failed:", *(f"  {line}" for line in wrong)]), file=sys.stderr)
    if said := log.read_text()[-LOG_SHOWN:]:
        print(f"The log of servers and workers ends with:\n{said}", file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="demo", description="Jobs of many kinds, and workers that are killed and redeployed while they run them."
    )
    parser.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="as of `jobwire serve`; by default a SQLite file in a temporary folder",
    )
    parser.add_argument("--jobs", type=int, default=2000, metavar="N", help=f"default: 2000, at least {LEAST_JOBS}")
    arguments = parser.parse_args()
    if arguments.jobs < LEAST_JOBS:
        parser.error(f"--jobs {arguments.jobs}: at least {LEAST_JOBS}, or the work is over before the last fault")
    name = f"demo-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix=f"jobwire-{name}-") as folder:
        try:
            with own_store(arguments.store, Path(folder), name) as store:
                try:
                    return asyncio.run(run(store, arguments.jobs, Path(folder)))
                finally:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what the demo made is still to be deleted
        except CannotUse as error:
            parser.error(str(error))
        except asyncio.CancelledError:
            print("Interrupted: servers and workers have ended, and nothing of the demo is left.", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
