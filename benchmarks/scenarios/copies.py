"""A whole store copied by `jobwire migrate` and `jobwire backup`, each as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks import lives
from benchmarks.figures import Figure
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import Server, cpu_seconds, server

BATCH: Final = 500


class Copy(NamedTuple):
    """What copying one store took."""

    rate: float
    """Jobs a second, as the command tells them, without its start."""
    server_cpu: float
    """Microseconds for each job."""


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    copies: defaultdict[str, list[Copy]] = defaultdict(list)
    with server(setup.store) as running, TemporaryDirectory(prefix="jobwire-bench-") as folder:
        await lives.creates(running, jobs=size.jobs, batch=BATCH)
        for number in setup.rounds():
            file, sent, back = (Path(folder, f"{name}-{number}.db") for name in ("file", "sent", "back"))
            beside = f"{running.engine_url}/0?prefix=copy{number}" if setup.has_engine else f"sqlite:///{back}"
            for name, arguments in {
                "backup --store": ("backup", str(file), "--store", running.store_url),
                "backup --address": ("backup", str(sent), "--address", running.address),
                "migrate from a file": ("migrate", "--from", f"sqlite:///{file}", "--to", beside),
                "migrate into a file": ("migrate", "--from", beside, "--to", f"sqlite:///{back}"),
            }.items():
                if setup.has_engine or name != "migrate into a file":  # which of a file is the same as from one
                    copies[name].append(await _copied(running, size.jobs, *arguments))
        counted = await lives.counted(running, created=size.jobs, completed=0)
    sent_cpu = [each.server_cpu for each in copies["backup --address"]]
    return Outcome(
        counted,
        [
            *(Figure(f"jobs by {name}", "/s", [each.rate for each in found]) for name, found in copies.items()),
            Figure("a job by backup --address, CPU of the server", "µs", sent_cpu),
        ],
    )


async def _copied(running: Server, jobs: int, *arguments: str) -> Copy:
    began = cpu_seconds(running.pid)
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobwire_server", *arguments, "--output", "json"), stdin=DEVNULL, stdout=PIPE
    )
    told, _ = await command.communicate()
    copied = json.loads(told)
    if command.returncode or copied["counted"]["jobs"] != jobs:
        raise lives.Miscounted(f"{arguments[0]} counts {copied['counted']['jobs']:,} of {jobs:,} jobs")
    return Copy(jobs / max(copied["seconds"], 0.001), 1e6 * (cpu_seconds(running.pid) - began) / jobs)


SCENARIO = Scenario(
    name="copies",
    what="all jobs of a store into another one by `jobwire backup` and `jobwire migrate`",
    promises="nothing by itself: how long a backup and a move to another store take",
    measure=measure,
    weight=60,
)
