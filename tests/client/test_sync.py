"""The client for threads: the same methods, and an end that is clean in every way a program can end."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.server_process import ServerProcess

from jobwire_client import AsyncClient, Client, InvalidField, JobNotFound, Unavailable, new_job


@pytest.fixture
def client(shared_server: ServerProcess) -> Iterator[Client]:
    with Client(shared_server.address) as client:
        yield client


def methods(kind: type) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: function for name, function in found if not name.startswith("_")}


def test_the_twins_have_the_same_methods_with_the_same_arguments() -> None:
    sync, asynchronous = methods(Client), methods(AsyncClient)
    assert sync.keys() == asynchronous.keys()
    for name, function in asynchronous.items():
        wanted, offered = inspect.signature(function), inspect.signature(sync[name])
        assert offered.parameters == wanted.parameters, name
        assert offered.return_annotation == wanted.return_annotation.replace("AsyncIterator", "Iterator"), name
        assert (sync[name].__doc__ or "").split("\n")[0] == (function.__doc__ or "").split("\n")[0] or name == "close"


def test_a_job_is_created_found_and_removed(client: Client, queue: str) -> None:
    made = client.create("x", {"n": 1}, queue=queue)
    assert [job.id for job in client.list(queues=[queue])] == [made.id]
    assert client.get(made.id).payload.text == '{"n": 1}'
    client.delete(made.id)
    with pytest.raises(JobNotFound):
        client.get(made.id)


def test_pages_go_on_until_the_limit(client: Client, queue: str) -> None:
    made = client.create_many(new_job("x", queue=queue) for _ in range(7))
    assert len(made) == 7
    filtered = {"queues": [queue], "states": ["QUEUED"]}
    assert len(list(client.list(page_size=3, **filtered))) == 7  # type: ignore[arg-type]  # a TypedDict, spelt loosely
    assert len(list(client.list(page_size=3, limit=4, **filtered))) == 4  # type: ignore[arg-type]  # the same


def test_an_error_is_that_of_the_async_twin(client: Client) -> None:
    with pytest.raises(InvalidField):
        client.create("x", priority=99)


def test_many_threads_share_one_client(client: Client, queue: str) -> None:
    together = threading.Barrier(8)

    def make(n: int) -> str:
        together.wait(30)
        return client.create("x", queue=queue, labels={"n": str(n)}).id

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make, range(8)))
    assert {job.id for job in client.list(queues=[queue])} == set(made)
    assert len(set(made)) == 8


def test_a_close_ends_the_call_of_another_thread(own_server: ServerProcess) -> None:
    own_server.kill()
    client = Client(own_server.address, timeout=3600)
    reading = threading.Event()

    def call() -> BaseException | None:
        reading.set()
        try:
            client.get("x")
        except (RuntimeError, Unavailable) as error:
            return error
        return None

    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(call)
        assert reading.wait(30)
        client.close()
        assert isinstance(calling.result(30), RuntimeError | Unavailable)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get("x")


def test_a_forgotten_client_ends_its_thread(shared_server: ServerProcess) -> None:
    client = Client(shared_server.address)
    client.count()
    thread, gone = client._thread, weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    thread.join(30)
    assert not thread.is_alive()


def test_a_client_from_before_a_fork_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="fork"):
            client.get("x")
    assert client.count() is not None


def test_a_target_that_cannot_be_used_is_told_at_once() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="IP"):
        Client("one.example:1,two.example:2")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "ending", ["", "raise SystemExit(0)", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"]
)
def test_a_program_that_never_closes_ends_quietly(shared_server: ServerProcess, ending: str) -> None:
    program = (
        f"from jobwire_client import Client\nc = Client('{shared_server.address}')\nprint(c.create('x').id)\n{ending}"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.strip()
    noise = [line for line in ran.stderr.splitlines() if "jobwire" in line or "asyncio" in line]
    assert not noise, ran.stderr
    assert ran.returncode == (0 if "kill" not in ending else -2)
