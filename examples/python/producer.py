"""A producer: python producer.py [HOST:PORT]. Makes a job for the worker beside it, and waits for what comes of it."""

import sys

from jobwire_client import Client, state_name

with Client(*sys.argv[1:2]) as client:
    made = client.create("hello", "world", queue="default")
    print(f"job {made.id} waits in queue {made.queue} for a worker: python worker.py")
    job = client.wait(made.id)
    print(f"{state_name(job.state)} in attempt {job.attempt}: {job.result.text or job.error.message}")
