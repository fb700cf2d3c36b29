"""What the drivers of Python peers share: python NAME_peer.py redis://… JOBS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PAYLOAD = "x" * 200
RESULT = "ok"
SECONDS = 300.0
"""More than that for one run is a hang."""

REDIS = os.environ.setdefault("BENCH_REDIS", sys.argv[1] if len(sys.argv) > 2 else "")
"""Without the number of the database. Workers are started by the peer's own command: theirs is in the environment."""


def drive(
    worker: Sequence[str],
    create: Callable[[int], None],
    left: Callable[[int], int],
    completed: Callable[[], int],
) -> None:
    """Times `create` and the worker's way through what it made, until nothing is `left`; prints the figures.

    `worker` is what Python runs in a process of its own.

    `left`, of so many that were created, is asked often and has to be cheap; `completed` once: it looks at every job.
    """
    jobs = int(sys.argv[2])
    here = Path(__file__).resolve().parent
    process = subprocess.Popen([sys.executable, *worker], cwd=here, stdout=sys.stderr)
    try:
        create(1)  # when this one is done, the worker has started
        _wait(process, lambda: left(1))
        start = time.perf_counter()
        create(jobs)
        _wait(process, lambda: left(jobs + 1))
        seconds = time.perf_counter() - start
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    print(json.dumps({"jobs": jobs, "seconds": seconds, "completed": completed() - 1}))


def _wait(process: subprocess.Popen[bytes], left: Callable[[], int]) -> None:
    deadline = time.monotonic() + SECONDS
    while left() > 0:
        if process.poll() is not None:
            sys.exit(f"the worker ended with {process.returncode}")
        if time.monotonic() > deadline:
            sys.exit(f"after {SECONDS:.0f} s there are {left()} jobs left")
        time.sleep(0.01)  # the peer's own count is all that tells
