"""SAQ on Redis; a worker of 100 jobs at a time."""

import asyncio
import json

from driving import PAYLOAD, REDIS, RESULT, drive
from redis import Redis
from saq import Queue

PRODUCERS = 32  # there is no call for many jobs
queue = Queue.from_url(f"{REDIS}/0")


async def bench(_: object, *, payload: str) -> str:
    return RESULT


settings = {"queue": queue, "functions": [bench], "concurrency": 100}


def create(jobs: int) -> None:
    asyncio.run(_create(jobs))


async def _create(jobs: int) -> None:
    producer = Queue.from_url(f"{REDIS}/0")
    numbers = iter(range(jobs))

    async def produce() -> None:
        for _ in numbers:
            await producer.enqueue("bench", payload=PAYLOAD, retries=3)

    await producer.connect()
    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    await producer.disconnect()


def completed() -> int:
    return sum(json.loads(value)["status"] == "complete" for value in redis.mget(redis.keys("saq:job:default:*")))


if __name__ == "__main__":
    redis = Redis.from_url(f"{REDIS}/0")
    drive(
        ["-m", "saq", "saq_peer.settings", "--quiet"],
        create,
        left=lambda _: redis.zcard("saq:default:incomplete"),
        completed=completed,
    )
