"""Calls that come at the same time are one call of the store, and none of them notices the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.service.coalescer import PATIENCE, Coalescer
from jobwire_server.store.base import StoreUnavailable


class Batches:
    """Doubles numbers, a batch at a time, when it is let."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.may_go_on = asyncio.Event()

    async def run(self, items: Sequence[int]) -> list[int]:
        self.seen.append([*items])
        await self.may_go_on.wait()
        if 13 in items:
            raise ValueError("13 is no number")
        if 99 in items:
            raise StoreUnavailable("away")
        return [2 * item for item in items]


async def settle(passes: int = 10) -> None:
    """Lets every task come to where it waits."""
    for _ in range(passes):
        await asyncio.sleep(0)


async def test_a_lone_call_goes_at_once() -> None:
    batches = Batches()
    batches.may_go_on.set()
    assert await Coalescer(batches.run, batch=10).call([1]) == [2]


async def test_what_comes_while_a_batch_is_under_way_gathers_for_the_next_in_order() -> None:
    batches = Batches()
    coalescer = Coalescer(batches.run, batch=10)
    callers = [asyncio.create_task(coalescer.call([n, n])) for n in range(1, 5)]
    await settle()
    batches.may_go_on.set()
    assert await asyncio.gather(*callers) == [[2, 2], [4, 4], [6, 6], [8, 8]]
    assert batches.seen == [[1, 1, 2, 2, 3, 3, 4, 4]] or batches.seen[0] == [1, 1]
    assert len(batches.seen) <= 2


async def test_where_calls_come_together_those_that_come_a_little_later_join() -> None:
    batches = Batches()
    batches.may_go_on.set()
    coalescer = Coalescer(batches.run, batch=100)
    await _met(coalescer, batches)
    callers = []
    for n in range(20, 40):
        callers.append(asyncio.create_task(coalescer.call([n])))
        await settle(passes=PATIENCE // 5)
    await asyncio.gather(*callers)
    assert batches.seen == [[*range(20, 40)]]


async def test_where_calls_come_one_by_one_none_waits_for_another() -> None:
    batches = Batches()
    batches.may_go_on.set()
    coalescer = Coalescer(batches.run, batch=100)
    callers = []
    for n in range(1, 5):
        callers.append(asyncio.create_task(coalescer.call([n])))
        await settle(passes=PATIENCE // 5)
    assert batches.seen == [[1], [2], [3], [4]]
    await asyncio.gather(*callers)


async def test_callers_that_never_end_do_not_hold_up_the_first() -> None:
    batches = Batches()
    batches.may_go_on.set()
    coalescer = Coalescer(batches.run, batch=1_000_000)
    await _met(coalescer, batches)
    callers = [asyncio.create_task(coalescer.call([1]))]
    while not batches.seen:
        callers.append(asyncio.create_task(coalescer.call([2])))
        await settle(passes=1)
        assert len(callers) < 20 * PATIENCE, "the first still waits"
    assert batches.seen[0][0] == 1
    await asyncio.gather(*callers)


async def _met(coalescer: Coalescer[int, int], batches: Batches) -> None:
    """Lets the coalescer see that calls come together."""
    await asyncio.gather(*(coalescer.call([0]) for _ in range(10)))
    batches.seen.clear()


async def test_a_batch_holds_no_more_than_it_may() -> None:
    batches = Batches()
    coalescer = Coalescer(batches.run, batch=4)
    callers = [asyncio.create_task(coalescer.call([n, n])) for n in range(5)]
    await settle()
    batches.may_go_on.set()
    await asyncio.gather(*callers)
    assert max(map(len, batches.seen)) == 4


async def test_a_call_of_more_than_half_a_batch_waits_for_nobody() -> None:
    batches = Batches()
    coalescer = Coalescer(batches.run, batch=4)
    small = asyncio.create_task(coalescer.call([1]))
    await settle()
    large = asyncio.create_task(coalescer.call([2, 3, 4]))
    await settle()
    assert batches.seen == [[1], [2, 3, 4]]
    batches.may_go_on.set()
    assert (await small, await large) == ([2], [4, 6, 8])


async def test_one_bad_call_fails_alone() -> None:
    batches = Batches()
    batches.may_go_on.set()
    coalescer = Coalescer(batches.run, batch=10)
    good, bad, better = await asyncio.gather(*(coalescer.call([n]) for n in (1, 13, 2)), return_exceptions=True)
    assert (good, better) == ([2], [4])
    assert isinstance(bad, ValueError)


async def test_a_store_that_is_away_is_away_for_all_and_is_not_asked_again() -> None:
    batches = Batches()
    batches.may_go_on.set()
    coalescer = Coalescer(batches.run, batch=10)
    answers = await asyncio.gather(*(coalescer.call([n]) for n in (1, 99, 2)), return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert sum(map(len, batches.seen)) == 3, "each item was asked for once"


async def test_a_caller_that_leaves_does_not_stop_the_others() -> None:
    batches = Batches()
    coalescer = Coalescer(batches.run, batch=10)
    leaver, stayer = (asyncio.create_task(coalescer.call([n])) for n in (1, 2))
    await settle()
    leaver.cancel()
    await settle()
    batches.may_go_on.set()
    assert await stayer == [4]


async def test_when_too_much_waits_further_calls_are_refused_and_told_when_to_come_again() -> None:
    batches = Batches()
    coalescer = Coalescer(batches.run, batch=4, bound=3)
    first = asyncio.create_task(coalescer.call([0]))
    await settle()  # under way: it waits no more
    waiting = asyncio.create_task(coalescer.call([1, 2]))
    await settle()
    with pytest.raises(JobwireError) as refused:
        await coalescer.call([3, 4])
    assert refused.value.reason is Reason.TOO_MANY_CALLS
    assert refused.value.retry_after
    batches.may_go_on.set()
    assert (await first, await waiting) == ([0], [2, 4])
