"""`jobwire wait` and `jobwire watch`, against a real server."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from tests.cli.conftest import PATIENCE, Ran, Shell

from jobwire_client import Client, JobContext, PermanentError, Worker


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[-64:].lstrip("-")


@contextmanager
def working(address: str, queue: str) -> Iterator[None]:
    """A worker that answers what it is given, and fails when that is `no`."""
    worker = Worker(address, queues=[queue])

    @worker.handler("echo")
    async def echo(context: JobContext) -> str:
        if context.text == "no":
            raise PermanentError("it said no")
        return context.text

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(worker.run(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(worker.stop)
        thread.join(PATIENCE)
        loop.close()


@contextmanager
def following(jobwire: Shell, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`jobwire watch` as a process; Ctrl-C ends it."""
    process = subprocess.Popen(
        jobwire.words("watch", *arguments),
        cwd=jobwire.folder,
        env=jobwire.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        timer.cancel()
        assert process.returncode == 130, errors
        assert "Traceback" not in errors


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_wait_prints_the_result_of_one_job(jobwire: Shell, address: str, queue: str) -> None:
    job_id = jobwire("create", "hello", "--type", "echo", "--queue", queue).out.strip()
    with ThreadPoolExecutor(1) as threads, working(address, queue):
        waited: Ran = threads.submit(jobwire.process, "wait", job_id).result(PATIENCE)
    assert (waited.code, waited.out, waited.err) == (0, "hello\n", "")
    assert jobwire("wait", job_id, "--output", "json").json["state"] == "JOB_STATE_COMPLETED"


def test_a_wait_for_several_prints_a_line_each_and_tells_the_last_that_went_wrong(
    jobwire: Shell, address: str, queue: str
) -> None:
    ids = [jobwire("create", text, "--type", "echo", "--queue", queue).out.strip() for text in ("yes", "no", "yes")]
    with working(address, queue):
        waited = jobwire("wait", *ids)
    assert waited.code == 1
    assert [row.split()[1] for row in waited.out.splitlines()] == ["COMPLETED", "FAILED", "COMPLETED"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["wait", "none"], 4, "there is no job"),
        (["wait", "x", "--address", "127.0.0.1:1", "--timeout", "0.5"], 3, "jobwire serve"),
        (["watch", "x", "--address", "127.0.0.1:1", "--timeout", "0.5"], 3, "jobwire serve"),
        (["watch", "not an id"], 2, "job_ids"),
        (["watch", "x", "--queue", "q"], 2, "either ids, or a filter"),
    ],
)
def test_what_cannot_be_followed_has_its_exit_code(jobwire: Shell, arguments: list[str], code: int, says: str) -> None:
    ran = jobwire(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err


def test_a_wait_that_is_too_short_says_what_to_do(jobwire: Shell, queue: str) -> None:
    job_id = jobwire("create", "--queue", queue).out.strip()
    waited = jobwire("wait", job_id, "--wait-timeout", "100ms")
    assert (waited.code, waited.out) == (8, "")
    assert f"jobwire why {job_id}" in waited.err


def test_a_watch_shows_what_is_there_and_each_change(jobwire: Shell, address: str, queue: str) -> None:
    job_id = jobwire("create", "--queue", queue, "--type", "echo").out.strip()
    with following(jobwire, "--queue", queue) as process, Client(address) as client:
        assert line(process).split()[1:] == [job_id, "QUEUED", queue, "echo"]
        client.cancel(job_id)
        assert line(process).split()[1:] == [job_id, "CANCELED", queue, "echo"]
        client.delete(job_id)
        assert line(process).split()[1:] == [job_id, "removed"]


def test_a_watch_for_programs_has_a_document_a_line(jobwire: Shell, address: str, queue: str) -> None:
    job_id = jobwire("create", "--queue", queue).out.strip()
    with following(jobwire, job_id, "--output", "json") as process, Client(address) as client:
        assert json.loads(line(process))["changed"]["state"] == "JOB_STATE_QUEUED"
        client.delete(job_id)
        assert json.loads(line(process)) == {"removed": job_id}
