"""A producer: python producer.py [HOST:PORT]. Makes a job for the worker beside it, and waits for what comes of it."""

import sys

from jobwire_client import Client, Unavailable, state_name

with Client(*sys.argv[1:2]) as client:
    try:
        made = client.create("hello", "world", queue="default")
    except Unavailable as error:
        sys.exit(f"{error}\nIs a server running there? Start one: make run")
    print(f"job {made.id} waits in queue {made.queue} for a worker: python worker.py")
    job = client.wait(made.id)
    print(f"{state_name(job.state)} in attempt {job.attempt}: {job.result.text or job.error.message}")
