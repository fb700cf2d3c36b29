"""A worker as a user would write it, which says when its handlers begin.

python -m benchmarks.idle_worker HOST:PORT QUEUE
"""

from __future__ import annotations

import logging
import sys
import time

from jobwire_client import JobContext, Worker
from jobwire_client.hooks import Settled


def main(address: str, queue: str) -> None:
    """Says of each job, once it is settled, when its handler had begun; until SIGTERM."""
    begun = 0.0

    def say(_: Settled) -> None:
        sys.stdout.write(f"{begun}\n")
        sys.stdout.flush()

    worker = Worker(address, queues=[queue], on_settled=say)

    @worker.default_handler
    async def handle(_: JobContext) -> str:
        nonlocal begun
        begun = time.monotonic()
        return "ok"

    worker.run_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)  # that it drains is no news
    main(sys.argv[1], sys.argv[2])
