"""Statistics with the client: asked once, and watched through a restart of the server; and long work that tells."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import aclosing

import pytest
from tests.client.conftest import PATIENCE, Bench
from tests.server_process import ServerProcess

from jobwire_client import AsyncClient, Client, InvalidField, QueueNotFound, new_job


async def test_stats_tell_of_the_queues_asked_for(bench: Bench, queue: str) -> None:
    await bench.client.create_many(new_job("x", queue=queue) for _ in range(3))
    stats = await bench.client.stats([queue])
    [told] = stats.queues
    assert (told.queue, [each.created_count for each in told.activity]) == (queue, [3, 3, 3])
    assert [each.count for each in told.counts] == [3]
    assert queue in {each.queue for each in (await bench.client.stats()).queues}
    with pytest.raises(InvalidField):
        await bench.client.stats(["no name"])


async def test_a_watch_of_stats_tells_again_and_again(bench: Bench, queue: str) -> None:
    async with aclosing(bench.client.watch_stats([queue], interval=0.1)) as told:  # type: ignore[type-var]  # it is a generator
        assert list((await anext(told)).queues) == []
        await bench.client.create("x", queue=queue)
        async with asyncio.timeout(PATIENCE):
            async for stats in told:
                if stats.queues:
                    assert stats.totals.activity[0].created_count == 1
                    break


async def test_a_watch_of_stats_outlives_its_server(own_server: ServerProcess) -> None:
    async with AsyncClient(own_server.address, timeout=PATIENCE) as client:
        told = client.watch_stats(interval=0.1)
        assert not (await anext(told)).queues
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        await client.create("x", queue="mail")
        async with asyncio.timeout(PATIENCE):
            async for stats in told:
                if stats.queues:
                    break


async def test_a_watch_of_stats_that_cannot_be_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidField):
        await anext(bench.client.watch_stats(interval=0.01))


def test_threads_watch_stats_as_well(shared_server: ServerProcess, queue: str) -> None:
    with Client(shared_server.address) as client:
        client.create("x", queue=queue)
        for number, stats in enumerate(client.watch_stats([queue], interval=0.1)):
            assert [each.queue for each in stats.queues] == [queue]
            if number == 2:
                break


def test_an_interrupted_watch_ends_without_another_error(
    shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with Client(shared_server.address) as client:
        told = client.watch_stats(interval=60)
        next(told)
        monkeypatch.setattr(Future, "result", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            next(told)


def test_a_watch_interrupted_while_it_hands_over_a_call_ends_too(
    shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over = asyncio.run_coroutine_threadsafe

    def ctrl_c(calling: Coroutine[None, None, object], loop: asyncio.AbstractEventLoop) -> Future[object]:
        monkeypatch.undo()
        hand_over(calling, loop)
        raise KeyboardInterrupt

    with Client(shared_server.address) as client:
        told = client.watch_stats(interval=60)
        next(told)
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            next(told)


async def test_long_work_tells_how_far_it_is(bench: Bench, queue: str) -> None:
    await bench.client.create_many(new_job("x", queue=queue) for _ in range(2500))
    heard: list[int] = []
    assert await bench.client.cancel_where(queues=[queue], told=heard.append) == 2500
    assert heard[-1] == 2500
    assert len(heard) > 2
    replayed: list[int] = []
    assert await bench.client.retry_where(queues=[queue], states=["CANCELED"], told=replayed.append) == 2500
    assert replayed == sorted(replayed)
    purged: list[int] = []
    assert await bench.client.purge_queue(queue, told=purged.append) == 2500
    assert purged[0] <= 1000
    assert purged[-1] == 2500
    with pytest.raises(QueueNotFound):
        await bench.client.purge_queue("never-was")
