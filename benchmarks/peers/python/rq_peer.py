"""rq on Redis; two workers that do not fork for each job, which is the fastest it has."""

from driving import PAYLOAD, REDIS, RESULT, drive
from redis import Redis
from rq import Queue
from rq.registry import FinishedJobRegistry

BATCH = 500


def bench(payload: str) -> str:
    return RESULT


def create(jobs: int) -> None:
    for first in range(0, jobs, BATCH):
        many = [Queue.prepare_data("rq_peer.bench", (PAYLOAD,)) for _ in range(min(BATCH, jobs - first))]
        queue.enqueue_many(many)


if __name__ == "__main__":
    queue = Queue("bench", connection=Redis.from_url(f"{REDIS}/0"))
    finished = FinishedJobRegistry(queue=queue)
    drive(
        ["-m", "rq.cli", "worker-pool", "bench", "-n", "2", "-w", "rq.worker.SimpleWorker", "-q", "-u", f"{REDIS}/0"],
        create,
        left=lambda made: made - finished.get_job_count(cleanup=False),
        completed=lambda: finished.get_job_count(cleanup=False),
    )
