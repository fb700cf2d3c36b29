"""arq on Redis, with results; a worker of 100 jobs at a time."""

import asyncio
import pickle

from arq import create_pool
from arq.connections import RedisSettings
from driving import PAYLOAD, REDIS, RESULT, drive
from redis import Redis

PRODUCERS = 32  # there is no call for many jobs
redis_settings = RedisSettings.from_dsn(f"{REDIS}/0")


async def bench(_: object, payload: str) -> str:
    return RESULT


class WorkerSettings:
    functions = (bench,)
    redis_settings = redis_settings
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 3600


def create(jobs: int) -> None:
    asyncio.run(_create(jobs))


async def _create(jobs: int) -> None:
    pool = await create_pool(redis_settings)
    numbers = iter(range(jobs))

    async def produce() -> None:
        for _ in numbers:
            await pool.enqueue_job("bench", PAYLOAD)

    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    await pool.aclose()


def succeeded() -> int:
    return sum(pickle.loads(value)["r"] == RESULT for value in redis.mget(redis.keys("arq:result:*")))


if __name__ == "__main__":
    redis = Redis.from_url(f"{REDIS}/0")
    # Its own command would log two lines for each job.
    worker = "from arq import run_worker; from arq_peer import WorkerSettings; run_worker(WorkerSettings)"
    drive(["-c", worker], create, left=lambda _: redis.zcard("arq:queue"), completed=succeeded)
