"""Whole lives of jobs in jobwire with plain stubs: python -m benchmarks.peers.jobwire_stubs HOST:PORT JOBS."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Final

from benchmarks import lives
from benchmarks.servers import Server

BATCH: Final = 500


async def main(address: str, jobs: int) -> None:
    server = Server(address, os.getpid(), None)
    timing = await lives.whole_lives(server, jobs=jobs, batch=BATCH)
    told = {"jobs": jobs, "seconds": timing.seconds, "completed": await lives.completed(server)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
