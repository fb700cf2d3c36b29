"""The model tier: chance writes tapes, and a model and a store play them side by side.

Every engine gets the same tapes, each time the same. A failure prints the shortest tape that shows it: once mended, it
goes to WRITTEN_BY_HAND. `HYPOTHESIS_PROFILE=thorough` plays other tapes each time, thousands of them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.store import chance, invariants
from tests.store.making import Clock
from tests.store.player import Player
from tests.store.shortest import shortest
from tests.store.side_by_side import Meetings, SideBySide
from tests.store.tape import Claim, Create, Decide, Moves, New, Step, Sweep, Wait, Wish
from tests.valkey_process import Keyspace

from jobwire_server.domain.job import MINUTE, SECOND
from jobwire_server.domain.policy import MAX_RELEASES
from jobwire_server.domain.retry import MAX_RETURNS
from jobwire_server.store.base import MAX_RETURNED, REFUSED_FOR, Store
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.sqlite.store import SqliteStore

THOROUGH: Final = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
TAPES: Final = 2000 if THOROUGH else 40
MOST_TAPES: Final = 4 * TAPES
"""It goes on so far while something has not been met."""
STEPS: Final = 100

WRITTEN_BY_HAND: Final[dict[str, list[Step]]] = {
    "the 20th return ends a job, and its worker is refused for a minute": [
        Create((New("a"), New("b"))),
        *[Wait(5 * MINUTE), Sweep("promote"), Claim((Wish("w"),)), Moves((Decide("hand_back", "a"),))] * MAX_RETURNS,
        *[Wait(REFUSED_FOR - 1), Claim((Wish("w"),)), Wait(1), Claim((Wish("w"),))],
    ],
    "what one claim handed out counts as one return of its worker": [
        Create((New("a"), New("b"), New("c"))),
        *[
            *[Wait(5 * MINUTE), Sweep("promote"), Claim((Wish("w", number=3, credit=3),))],
            Moves((Decide("hand_back", "a"), Decide("hand_back", "b"), Decide("hand_back", "c"))),
        ]
        * (MAX_RETURNED // 3 + 1),
        Claim((Wish("w", number=0),)),
    ],
    "the 21st release ends a job that has no retries": [
        Create((New("a", retries=0),)),
        *[Claim((Wish("w", delivery=0),)), Moves((Decide("release", "a"),))] * (MAX_RELEASES + 1),
    ],
    "a worker that asks twice in one call holds only what it got": [
        Create((New("a", expires_in=SECOND),)),
        Wait(SECOND),
        Claim((Wish("w", number=0), Wish("w", number=3))),
    ],
    "a job that has expired is not the next of its queue": [
        Create((New("a", expires_in=SECOND),)),
        Wait(SECOND),
    ],
    "the creates of one call are answered in order": [
        Create((New("a", key="k", retention=0),)),
        Create((New("b", key="k"), New("c"))),
        Moves((Decide("cancel", "a"),)),
        Create((New("b", key="k"), New("a"))),
    ],
}
"""Tapes that chance would hardly write, and those that once showed a difference."""

Play = Callable[[list[Step]], None]
"""Raises what a store raised, or AssertionError where it differs from the model."""


@asynccontextmanager
async def opened(
    engine: str, keyspace: Keyspace | None, file: Path, clock: Clock
) -> AsyncIterator[tuple[Store, Callable[[], None]]]:
    """A store that holds nothing, and what lets it believe that it is just back from an outage."""
    store: SqliteStore | RedisStore
    if keyspace is None:
        store = SqliteStore(None if engine == "memory" else str(file), clock=clock, outage_gap=None)
    else:
        keyspace.server.flush()
        store = RedisStore(keyspace.url, clock=clock, outage_gap=None)

    def outage() -> None:
        if isinstance(store, SqliteStore):
            store._recovered_at = clock()
        elif keyspace is not None:
            with keyspace.server.client() as client:
                client.hset(Keys(keyspace.prefix).swept, "recovered_at", str(clock()))

    await store.open()
    try:
        yield store, outage
    finally:
        await store.close()


@contextmanager
def playing(engine: str, keyspace: Keyspace | None, folder: Path, meetings: Meetings) -> Iterator[Play]:
    numbers = itertools.count()

    async def play(tape: list[Step]) -> None:
        player = Player(purges_requests=keyspace is None)
        async with opened(engine, keyspace, folder / f"{next(numbers)}.db", player.clock) as (store, outage):
            await SideBySide(store, player, meetings, outage).play(tape, chance.IDS)
            broken = await invariants.broken(store, keyspace)
            assert not broken, broken

    with asyncio.Runner() as runner:
        yield lambda tape: runner.run(play(tape))


def error_of(play: Play, tape: list[Step]) -> Exception | None:
    try:
        play(tape)
    except Exception as error:  # noqa: BLE001  what a store raises is as wrong as a wrong answer
        return error
    return None


def tell(play: Play, tape: list[Step]) -> str:
    """The shortest form of a tape that fails, as it can be played again, and how it does."""
    short = shortest(tape, lambda fewer: error_of(play, fewer) is not None)
    return "\n".join([f"{error_of(play, short)}", "The shortest tape that shows it:", *(f"{step}," for step in short)])


@pytest.mark.timeout(0 if THOROUGH else 300)  # most of which is for making a failure short
def test_a_store_answers_as_the_model_does(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> None:
    meetings = Meetings()
    wrong: list[list[Step]] = []
    played = itertools.count(1)
    with playing(engine, keyspace, tmp_path, meetings) as play:
        # Of a tape that fails, hypothesis is not asked to find a shorter one: it would change the dice, not the steps.
        @settings(
            max_examples=MOST_TAPES,
            derandomize=not THOROUGH,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(st.randoms(use_true_random=True))
        def play_what_chance_writes(random: Random) -> None:
            if not wrong and (next(played) <= TAPES or meetings.missing):
                tape = chance.tape(random, STEPS)
                wrong.extend([tape] if error_of(play, tape) else [])

        wrong.extend(tape for tape in WRITTEN_BY_HAND.values() if error_of(play, tape))
        play_what_chance_writes()
        if wrong:
            pytest.fail(tell(play, wrong[0]), pytrace=False)
    assert not meetings.missing, "no tape has met: " + "; ".join(meetings.missing)


def test_a_difference_is_told_by_the_shortest_tape_that_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def promote_nothing(store: SqliteStore, *, limit: int) -> int:
        return 0

    monkeypatch.setattr(SqliteStore, "promote", promote_nothing)
    tape = [
        Create((New("a", queue="r", due_in=SECOND, priority=2), New("b"))),
        Claim((Wish("w"), Wish("v"))),
        Wait(MINUTE),
        Sweep("promote", bite=2),
        Sweep("purge"),
    ]
    with playing("memory", None, tmp_path, Meetings()) as play:
        told = tell(play, tape)
    assert told.splitlines() == [
        "step 3, Sweep(verb='promote'): the store differs from the model",
        "  answer: model 1, store 0",
        "The shortest tape that shows it:",
        "Create(jobs=(New(id='a', due_in=1000000),)),",
        "Wait(time=60000000),",
        "Sweep(verb='promote'),",
    ]
