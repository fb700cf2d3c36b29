"""dramatiq on Redis, with results in Redis; two processes."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from driving import PAYLOAD, REDIS, RESULT, drive
from redis import Redis

broker = RedisBroker(url=f"{REDIS}/0")
broker.add_middleware(Results(backend=RedisBackend(url=f"{REDIS}/1"), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def bench(payload: str) -> str:
    return RESULT


def create(jobs: int) -> None:
    for _ in range(jobs):
        bench.send(PAYLOAD)


if __name__ == "__main__":
    results = Redis.from_url(f"{REDIS}/1")
    drive(
        ["-m", "dramatiq", "dramatiq_peer", "--processes", "2", "--threads", "8"],
        create,
        left=lambda made: made - results.dbsize(),
        completed=lambda: sum(b'"ok"' in results.lindex(key, 0) for key in results.keys("*")),
    )
