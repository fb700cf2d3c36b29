"""How calls that come at the same time become one, and who hears what of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
import pytest_asyncio
from tests.client.conftest import Bench

from jobwire.v1.job_pb2 import Job, Payload
from jobwire.v1.job_service_pb2 import BatchCreateJobsRequest, CreateJobRequest
from jobwire_client import InvalidField, JobwireError, PermissionDenied
from jobwire_client._coalescer import LARGE, Coalescer
from jobwire_client.errors import DeadlineExceeded, InternalError, JobNotFound, Unavailable
from jobwire_client.models import BATCH_BYTES, BATCH_ITEMS

Outcome = str | JobwireError


def request(name: str, size: int = 0) -> CreateJobRequest:
    return CreateJobRequest(job=Job(id=name, payload=Payload(data=bytes(size))))


def unavailable() -> Unavailable:
    return Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE, reason="UNAVAILABLE")


class Server:
    """Gets the calls; the test answers them."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[list[str], asyncio.Future[Sequence[Outcome]]]] = asyncio.Queue()

    async def send(self, requests: Sequence[CreateJobRequest], timeout: float) -> Sequence[Outcome]:
        answer: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self.calls.put_nowait(([each.job.id for each in requests], answer))
        return await answer

    async def next(self, *outcomes: Outcome, whole: JobwireError | None = None) -> list[str]:
        """Answers a call, with its own names if nothing else is said."""
        names, answer = await self.calls.get()
        if whole is not None:
            answer.set_exception(whole)
        else:
            answer.set_result(outcomes or names)
        return names


class Callers:
    """Who calls, each in a task."""

    def __init__(self, server: Server, calls: int = 1) -> None:
        self.coalescer: Coalescer[CreateJobRequest, str] = Coalescer(server.send, calls=calls)

    def call(
        self, name: str, *, size: int = 0, deadline: float | None = None, is_repeatable: bool = True
    ) -> asyncio.Task[str]:
        submitting = self.coalescer.submit(request(name, size), deadline=deadline, is_repeatable=is_repeatable)
        return asyncio.create_task(submitting)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest_asyncio.fixture
async def callers(server: Server) -> AsyncIterator[Callers]:
    callers = Callers(server)
    yield callers
    await callers.coalescer.close()


async def test_callers_of_the_same_moment_share_the_first_call(server: Server, callers: Callers) -> None:
    called = [callers.call(name) for name in "abc"]
    assert await server.next() == ["a", "b", "c"]
    assert await asyncio.gather(*called) == ["a", "b", "c"]


async def test_callers_that_come_again_share_the_next(server: Server, callers: Callers) -> None:
    async def twice(name: str) -> None:
        for _ in range(2):
            await callers.coalescer.submit(request(name), deadline=None)

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(twice(name))
        names, answer = await server.calls.get()
        assert names == ["a", "b", "c"]
        tasks.create_task(callers.coalescer.submit(request("d"), deadline=None))
        await asyncio.sleep(0)
        answer.set_result(names)
        assert await server.next() == ["d", "a", "b", "c"]


async def test_a_refused_item_leaves_its_neighbours_alone(server: Server, callers: Callers) -> None:
    called = [callers.call(name) for name in "abc"]
    bad = InvalidField("bad", code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_FIELD")
    await server.next("a", bad, "c")
    assert await asyncio.gather(*called, return_exceptions=True) == ["a", bad, "c"]


async def test_a_refusal_of_the_caller_is_not_tried_item_by_item(server: Server, callers: Callers) -> None:
    called = [callers.call(name) for name in "ab"]
    denied = PermissionDenied("no", code=grpc.StatusCode.PERMISSION_DENIED, reason="PERMISSION_DENIED")
    await server.next(whole=denied)
    assert await asyncio.gather(*called, return_exceptions=True) == [denied, denied]


async def test_the_one_that_spoils_a_call_is_found_by_halving(server: Server, callers: Callers) -> None:
    called = [callers.call(name) for name in "abcd"]
    bug = InternalError("bug", code=grpc.StatusCode.INTERNAL, reason="INTERNAL")
    assert await server.next(whole=bug) == ["a", "b", "c", "d"]
    assert await server.next() == ["a", "b"]
    assert await server.next(whole=bug) == ["c", "d"]
    assert await server.next(whole=bug) == ["c"]
    assert await server.next() == ["d"]
    assert await asyncio.gather(*called, return_exceptions=True) == ["a", "b", bug, "d"]


async def test_a_caller_that_leaves_takes_nobody_along(server: Server, callers: Callers) -> None:
    leaving, waiting = callers.call("a"), callers.call("b")
    names, answer = await server.calls.get()
    leaving.cancel()
    answer.set_result(names)
    assert await waiting == "b"
    assert leaving.cancelled()


async def test_an_unanswered_call_is_repeated_without_those_who_left(server: Server, callers: Callers) -> None:
    leaving, waiting = callers.call("a"), callers.call("b")
    names, answer = await server.calls.get()
    assert names == ["a", "b"]
    leaving.cancel()
    answer.set_exception(unavailable())
    assert await server.next() == ["b"]
    assert await waiting == "b"


async def test_what_cannot_be_repeated_is_told_at_once(server: Server, callers: Callers) -> None:
    once, again = callers.call("a", is_repeatable=False), callers.call("b")
    await server.next(whole=unavailable())
    with pytest.raises(Unavailable):
        await once
    assert await server.next() == ["b"]
    assert await again == "b"


async def test_a_deadline_ends_the_wait_of_its_caller_alone(server: Server, callers: Callers) -> None:
    now = asyncio.get_running_loop().time()
    late, patient = callers.call("a", deadline=now), callers.call("b", deadline=now + 3600)
    with pytest.raises(DeadlineExceeded):
        await late
    assert "b" in await server.next()
    assert await patient == "b"


async def test_at_its_deadline_a_caller_hears_why_there_was_no_answer(server: Server, callers: Callers) -> None:
    called = callers.call("a")
    gone = unavailable()
    await server.next(whole=gone)
    for _ in range(20):  # turns of the loop, in which it is put back
        await asyncio.sleep(0)
    callers.coalescer._waiting[0].expire()  # as its deadline does
    with pytest.raises(Unavailable) as caught:
        await called
    assert caught.value is gone


async def test_a_refusal_after_an_unknown_outcome_stays_unknown(server: Server, callers: Callers) -> None:
    called = callers.call("a")
    await server.next(whole=unavailable())
    await server.next(JobNotFound("gone", code=grpc.StatusCode.NOT_FOUND, reason="JOB_NOT_FOUND"))
    with pytest.raises(JobNotFound) as caught:
        await called
    assert caught.value.is_outcome_unknown


async def test_a_large_crowd_gets_a_second_call_beside_the_first(server: Server) -> None:
    callers = Callers(server, calls=2)
    first = callers.call("first")
    _, first_answer = await server.calls.get()
    few = [callers.call("few") for _ in range(LARGE - 1)]
    await asyncio.sleep(0)
    assert server.calls.empty(), "few wait for the answer of the first"
    few.append(callers.call("one more"))
    assert len(await server.next()) == LARGE
    await asyncio.gather(*few)
    first_answer.set_result(["first"])
    assert await first == "first"
    later = callers.call("later")
    assert await server.next() == ["later"]
    await later


async def test_a_call_holds_no_more_than_the_server_takes(server: Server, callers: Callers) -> None:
    called = [callers.call("x") for _ in range(BATCH_ITEMS + 1)]
    assert [len(await server.next()) for _ in range(2)] == [BATCH_ITEMS, 1]
    called += [callers.call("heavy", size=BATCH_BYTES // 3) for _ in range(4)]
    assert [len(await server.next()) for _ in range(2)] == [2, 2]
    await asyncio.gather(*called)


async def test_a_close_is_told_to_all_who_wait(server: Server, callers: Callers) -> None:
    called = [callers.call("a")]
    await server.calls.get()
    called.append(callers.call("b"))
    await asyncio.sleep(0)
    await callers.coalescer.close()
    for each in called:
        with pytest.raises(Unavailable) as caught:
            await each
        assert caught.value.is_outcome_unknown


async def test_creates_of_one_moment_are_one_call_on_the_wire(bench: Bench, queue: str) -> None:
    calls: list[int] = []
    send = bench.client._creates._send

    async def count(requests: Sequence[CreateJobRequest], timeout: float) -> Sequence[Job | JobwireError]:
        calls.append(len(BatchCreateJobsRequest(requests=requests).requests))
        return await send(requests, timeout)

    bench.client._creates._send = count
    made = await asyncio.gather(*(bench.client.create("x", queue=queue) for _ in range(64)))
    assert calls == [64]
    assert len({job.id for job in made}) == 64
