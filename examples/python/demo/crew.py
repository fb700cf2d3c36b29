"""The workers, and what is done to them."""

from __future__ import annotations

import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from examples.python.demo.kinds import Queues
from examples.python.demo.processes import Children, end
from examples.python.demo.watch import Sight, Watch
from jobwire_client import Job

LEAST_HELD = 5
"""Jobs that a worker must have begun, as the server has it, for something to be done to it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to a worker while it was at work."""

    how: Literal["kill -9", "redeployed"]
    worker_id: str
    held: Sequence[Job]
    """What it held at that moment, as the server had it."""
    running: int
    """Jobs that all workers together held then."""
    exit_code: int


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that runs."""

    id: str
    process: Process


class Crew:
    """Workers of which some are always being replaced; each is told of all servers, in turn another one first."""

    def __init__(
        self,
        workers: Children,
        targets: Sequence[str],
        queues: Queues,
        ledger: Path,
        watch: Watch,
        say: Callable[[str], None],
    ) -> None:
        self._workers = workers
        self._targets = targets
        self._queues = queues
        self._ledger = ledger
        self._watch = watch
        self._say = say
        self._hired = 0
        self.members: list[Member] = []
        self.faults: list[Fault] = []

    async def hire(self) -> Member:
        """One more worker."""
        first = self._hired % len(self._targets)
        self._hired += 1
        id = f"worker-{self._hired}"
        target = ",".join([*self._targets[first:], *self._targets[:first]])
        process = await self._workers.start(
            "examples.python.demo.worker", target, id, str(self._ledger), self._queues.main
        )
        member = Member(id, process)
        self.members.append(member)
        return member

    async def kill_one(self) -> None:
        """Kill -9 of the oldest while it holds jobs; then a new one in its place."""
        victim = self.members[0]
        while True:
            await self._watch.until(lambda sight: _is_at_work(victim, sight))
            victim.process.send_signal(signal.SIGSTOP)  # on a busy machine it might be done with what was seen
            sight = await self._watch.look()
            if held := sight.held_by(victim.id):
                break
            victim.process.send_signal(signal.SIGCONT)
        victim.process.kill()
        code = await victim.process.wait()
        self.faults.append(Fault("kill -9", victim.id, held, len(sight.running), code))
        self.members.remove(victim)
        new = await self.hire()
        self._say(f"kill -9 of {victim.id}, which held {len(held)} of {_running(sight)}; {new.id} starts")

    async def redeploy_one(self) -> None:
        """A new one, then SIGTERM for the oldest while it holds jobs: it drains and ends by itself."""
        leaving = self.members[0]
        new = await self.hire()
        sight = await self._watch.until(lambda sight: _is_at_work(leaving, sight))
        held = sight.held_by(leaving.id)
        leaving.process.terminate()
        self._say(f"SIGTERM for {leaving.id}, which holds {len(held)} of {_running(sight)}; {new.id} takes over")
        code = await end(leaving.process)
        self.faults.append(Fault("redeployed", leaving.id, held, len(sight.running), code))
        self.members.remove(leaving)


def _is_at_work(member: Member, sight: Sight) -> bool:
    return sum(job.lease.acknowledged for job in sight.held_by(member.id)) >= LEAST_HELD


def _running(sight: Sight) -> str:
    return f"{len(sight.running)} running jobs"
