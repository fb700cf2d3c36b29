"""A worker of its own process, for tests that stop and kill it: TARGET ID CREDIT LEASE DELIVERY SEED.

Each event of its history is a line on its standard output, written through before anything else happens. On its
standard input it takes `hold N` (the next N handlers hold) and `go` (all that hold go on); it ends with that input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time

from tests.faults.history import ACCEPTED, REPEATED, Event, Kind

from jobwire.v1.job_service_pb2 import ClaimJobRequest
from jobwire_client import JobContext, JobwireError, Settled, Worker

SHORTEST, LONGEST = 0.002, 0.008
"""Seconds that a handler takes."""


class Impatient(Worker):
    """What was on its way when its server died comes back sooner than after the 10 s of the default."""

    def __init__(self, target: str, *, id: str, concurrency: int, lease: float, delivery: float) -> None:
        super().__init__(target, id=id, concurrency=concurrency, lease_duration=lease, on_settled=self._say_settled)
        self._delivery = delivery

    def say(self, kind: Kind, job_id: str, fence: int, *, token: str = "", answer: str = "") -> None:
        now = time.monotonic()
        event = Event(worker=self.id, kind=kind, job_id=job_id, fence=fence, at=now, token=token, answer=answer)
        os.write(sys.stdout.fileno(), event.line())

    def _say_settled(self, run: Settled) -> None:
        if isinstance(run.answer, JobwireError):
            answer = run.answer.reason
        else:
            answer = REPEATED if run.answer.already_applied else ACCEPTED
        self.say(Kind.SETTLED, run.job.id, run.fence, answer=answer)

    def _claim_request(self) -> ClaimJobRequest:
        request = super()._claim_request()
        request.delivery_timeout.FromMilliseconds(round(self._delivery * 1000))
        return request


class Holds:
    """How many handlers are yet to hold, and what those wait for that do."""

    def __init__(self) -> None:
        self._wanted = 0
        self._go = asyncio.Event()

    def obey(self, words: list[str]) -> None:
        match words:
            case ["hold", number]:
                self._wanted = int(number)
                self._go.clear()
            case ["go"]:
                self._wanted = 0
                self._go.set()

    def takes(self) -> bool:
        if self._wanted:
            self._wanted -= 1
            return True
        return False

    async def over(self) -> None:
        await self._go.wait()


async def main(target: str, id: str, credit: str, lease: str, delivery: str, seed: str) -> None:
    worker = Impatient(target, id=id, concurrency=int(credit), lease=float(lease), delivery=float(delivery))
    choose, holds = random.Random(f"{seed} {id}"), Holds()

    @worker.handler("work")
    async def work(context: JobContext) -> str:
        job_id, fence = context.job.id, context.fence
        # The token, so that the test can settle under it long after this process has gone.
        worker.say(Kind.STARTED, job_id, fence, token=context._assignment.token)
        try:
            if holds.takes():
                worker.say(Kind.HOLDING, job_id, fence)
                await holds.over()
            else:
                await asyncio.sleep(choose.uniform(SHORTEST, LONGEST))
            return f"done {context.text}"
        finally:
            worker.say(Kind.ENDED, job_id, fence)

    async def obey() -> None:
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            holds.obey(line.decode().split())
        os._exit(1)  # whoever started it has gone

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    obeying = asyncio.create_task(obey())
    await worker.run()
    obeying.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
