"""Celery on Redis, with results in Redis; two processes of its default pool."""

from celery import Celery
from driving import PAYLOAD, REDIS, RESULT, drive
from redis import Redis

app = Celery("celery_peer", broker=f"{REDIS}/0", backend=f"{REDIS}/1")
app.conf.update(worker_prefetch_multiplier=100, worker_hijack_root_logger=False)


@app.task(name="bench")
def bench(payload: str) -> str:
    return RESULT


def create(jobs: int) -> None:
    with app.producer_pool.acquire() as producer:
        for _ in range(jobs):
            bench.apply_async((PAYLOAD,), producer=producer)


if __name__ == "__main__":
    results = Redis.from_url(f"{REDIS}/1")
    drive(
        [
            "-m",
            "celery",
            "-A",
            "celery_peer",
            "worker",
            "--concurrency",
            "2",
            "--loglevel",
            "ERROR",
            "--without-gossip",
        ],
        create,
        left=lambda made: made - results.dbsize(),
        completed=lambda: sum(b'"SUCCESS"' in value for value in results.mget(results.keys("celery-task-meta-*"))),
    )
