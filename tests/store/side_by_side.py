"""A model and a store play one tape: each answer and, after each step, the whole state must be the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

from tests.store.player import BY_ONE, Call, Player
from tests.store.tape import Outage, Step

from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import GUARD_TABLE, Outcome
from jobwire_server.domain.job import TRANSITIONS, Job, JobState, Verb
from jobwire_server.store.base import ClaimOutcome, ClaimRequest, CreateOutcome, Store
from jobwire_server.store.changes import Changes

MUST_MEET: Final[dict[str, set[str]]] = {
    "create": {*CreateOutcome, "existed, and has gone"},
    "claim": {*ClaimOutcome, "nothing: paused", "nothing: ceiling", "nothing: credit", "past an expired job"},
    "renew": {Outcome.OK, Outcome.GONE, Outcome.LOST, "acknowledged", "progress", "cancel requested", "nothing left"},
    "delete": {Outcome.OK, Outcome.GONE, Outcome.STALE},
    "put_queue": {Outcome.OK, Outcome.GONE, Outcome.STALE},
    "beat": {"heard", "superseded"},
    "direct": {"some", "none"},
    "purge": {"some", "none", "a queue", "a worker"},
    "queues": {"some"},
    "workers": {"some"},
    **{verb: {"some", "none"} for verb in ("promote", "overdue", "leased", "find", "count")},
    **{verb: {*answers.values(), "repeated"} for verb, answers in GUARD_TABLE.items()},
    **{
        f"{verb} of a job that is {state}": {f"now {to}" for to in states or {"nowhere"}}
        for state, ways in TRANSITIONS.items()
        for verb, states in ways.items()
    },
}
"""Verb → what it has to answer, or to meet, before a run may say that model and store agree."""

WHOLE: Final = (
    Call("queues", named=(("lately", True), ("minutes", True))),
    Call("workers"),
    Call("find"),
    Call("count"),
)
"""What shows the rest of the state, beside the jobs by their ids."""
WHOLE_EVERY: Final = 8
"""Steps, and at the end: it costs more than the steps themselves, and what is wrong there stays wrong for a while."""


class Meetings:
    """What has been met, by verb."""

    def __init__(self) -> None:
        self._met: set[tuple[str, str]] = set()

    @property
    def missing(self) -> list[str]:
        return sorted(
            f"{v}: {what}" for v, each in MUST_MEET.items() for what in each if (v, str(what)) not in self._met
        )

    def add(self, verb: str, *what: str) -> None:
        self._met |= {(verb, str(each)) for each in what}

    def went(self, verb: Verb, left: JobState, to: JobState | None) -> None:
        self.add(f"{verb} of a job that is {left}", f"now {'nowhere' if to is None else to}")


class SideBySide:
    """`outage` lets the store believe that it is just back from one."""

    def __init__(self, store: Store, player: Player, meetings: Meetings, outage: Callable[[], None]) -> None:
        self._store = store
        self._player = player
        self._model = player.model
        self._meetings = meetings
        self._outage = outage

    async def play(self, tape: Sequence[Step], ids: Sequence[str]) -> None:
        """`ids`: of all jobs that the tape may name."""
        heard: list[Changes] = []
        await self._store.watch(heard.append)
        for number, step in enumerate(tape, 1):
            where = f"step {number}, {step}"
            if isinstance(step, Outage):
                self._outage()
            call = self._player.call(step)
            if call is not None:
                before = dict(self._model.jobs)
                _judge(where, call, self._expected(call), await _answer(self._store, call))
                await self._store.caught_up()
                _judge_told(where, call, before, self._model.jobs, heard)
                heard.clear()
            is_time = number % WHOLE_EVERY == 0 or number == len(tape)
            state = [Call("get", (ids,)), *(WHOLE if is_time else ())]
            found = await asyncio.gather(*(_answer(self._store, each) for each in state))
            for each, answer in zip(state, found, strict=True):
                _judge(f"{where}, and then `{each.verb}`", each, each.of(self._model), answer)
            self._player.look()

    # --- the model's answers, and what they meet --------------------------------------------------------------

    def _expected(self, call: Call) -> Any:
        if call.verb in BY_ONE:
            return [self._expected_of(call.verb, item) for item in call.given[0]]
        jobs, queues, workers = dict(self._model.jobs), set(self._model.settings), set(self._model.accounts)
        expected = call.of(self._model)
        match call.verb:
            case "claim":
                for request, claimed in zip(call.given[1], expected.claimed, strict=True):
                    self._meet_claim(call.given[0], request, claimed, jobs)
            case "promote" | "purge":
                for job in jobs.values():
                    after = self._model.jobs.get(job.id)
                    if after != job:
                        self._meetings.went(Verb(call.verb), job.state, None if after is None else after.state)
                self._meetings.add(call.verb, "some" if expected else "none")
                self._meetings.add("purge", *["a queue"] * (queues > set(self._model.settings)))
                self._meetings.add("purge", *["a worker"] * (workers > set(self._model.accounts)))
            case "put_queue":
                self._meetings.add("put_queue", expected.outcome)
            case "beat":
                self._meetings.add("beat", "heard" if expected else "superseded")
            case _:
                self._meetings.add(call.verb, "some" if expected else "none")
        return expected

    def _expected_of(self, verb: str, item: Any) -> Any:
        before = self._model.jobs.get(item.id if verb == "create" else item.job_id)
        (expected,) = Call(verb, ([item],)).of(self._model)
        match verb:
            case "create":
                has_gone = expected.outcome is CreateOutcome.EXISTED and expected.job is None
                self._meetings.add(verb, expected.outcome, *["existed, and has gone"] * has_gone)
            case "move":
                move = item.as_move()
                is_repeated = before is not None and before.last_operation == move.operation
                self._meetings.add(move.verb, "repeated" if is_repeated else expected.outcome)
                if before is not None and expected.outcome is Outcome.OK and not is_repeated:
                    self._meetings.went(move.verb, before.state, move.to)
            case "renew":
                self._meetings.add(verb, expected.outcome)
                if before is not None and expected.outcome is Outcome.OK:
                    self._meetings.add(verb, *["acknowledged"] * (not before.acknowledged))
                    self._meetings.add(verb, *["progress"] * item.has_progress)
                    self._meetings.add(verb, *["cancel requested"] * expected.cancel_requested)
                    self._meetings.add(verb, *["nothing left"] * (expected.remaining == 0))
            case "delete":
                self._meetings.add(verb, expected)
                if before is not None and expected is Outcome.OK:
                    self._meetings.went(Verb.DELETE, before.state, None)
        return expected

    def _meet_claim(self, queue: str, request: ClaimRequest, claimed: Any, jobs: dict[str, Job]) -> None:
        waiting = [job for job in jobs.values() if (job.state, job.queue) == (JobState.QUEUED, queue)]
        expired = [job for job in waiting if job.is_expired(self._model.now)]
        self._meetings.add("claim", claimed.outcome)
        for job in claimed.jobs:
            self._meetings.went(Verb.CLAIM, JobState.QUEUED, JobState.IN_PROGRESS)
            before = jobs[job.id]
            is_past = any((each.score, each.id) < (before.score, before.id) for each in expired)
            self._meetings.add("claim", *["past an expired job"] * is_past)
        if claimed.outcome is ClaimOutcome.OK and not claimed.jobs and request.tokens and len(waiting) > len(expired):
            settings = self._model.settings[queue]
            is_full = claimed.held >= request.max_in_flight
            reason = "paused" if settings.paused else "credit" if is_full else "ceiling"
            if reason != "ceiling" or settings.max_in_flight is not None:
                self._meetings.add("claim", f"nothing: {reason}")


# --- the store's answers, whole -----------------------------------------------------------------------------


async def _answer(store: Store, call: Call) -> Any:
    """As the model gives it: sweeps until nothing is left, listings to their end."""
    match call.verb:
        case "promote" | "purge":
            sweep, swept = getattr(store, call.verb), 0
            while done := await sweep(limit=call.bite):
                assert done <= call.bite
                swept += done
            return swept
        case "overdue" | "leased":
            return (await getattr(store, call.verb)(queues=call.given[0], limit=call.bite, **dict(call.named))).jobs
        case "queues":
            return await _named(call, store.queues, lambda page: page.queues, lambda queue: queue.settings.name)
        case "workers":
            return await _named(call, store.workers, lambda page: page.workers, lambda worker: worker.info.id)
        case "find":
            return [job async for found in _pages(store, call) for job in found.jobs]
        case "count":
            counts: dict[JobState, int] = {}
            async for part in _pages(store, call):
                counts = {
                    state: counts.get(state, 0) + part.by_state.get(state, 0) for state in {*counts, *part.by_state}
                }
            return counts
        case _:
            return await getattr(store, call.verb)(*call.given, **dict(call.named))


async def _named(
    call: Call, ask: Callable[..., Awaitable[Any]], records: Callable[[Any], list[Any]], name: Callable[[Any], str]
) -> list[Any]:
    names, limit = call.given[0] if call.given else (), call.bite or 1000
    if names:
        return records(await ask(**{"names" if call.verb == "queues" else "ids": names}, **dict(call.named)))
    found: list[Any] = []
    while True:
        page = records(await ask(after=name(found[-1]) if found else "", limit=limit, **dict(call.named)))
        assert len(page) <= limit
        found += page
        if len(page) < limit:
            return found


async def _pages(store: Store, call: Call) -> AsyncIterator[Any]:
    wanted, after = call.given or (JobFilter(), None)
    while True:
        if call.verb == "count":
            page: Any = await store.count(wanted, after=after)
        else:
            page = await store.find(wanted, after=after, limit=call.bite or 1000)
            assert len(page.jobs) <= (call.bite or 1000)
        yield page
        if page.end is None:
            return
        assert page.end != after, "it would go on for ever"
        after = page.end


# --- comparing ----------------------------------------------------------------------------------------------


def _judge(where: str, call: Call, expected: Any, found: Any) -> None:
    if call.verb in ("overdue", "leased") and call.bite is not None and len(expected) > call.bite:
        expected = _cut(call.verb, call.bite, expected, found)
    if expected != found:
        raise AssertionError("\n".join([f"{where}: the store differs from the model", *differences(expected, found)]))


def _judge_told(
    where: str, call: Call, before: dict[str, Job], after: dict[str, Job], heard: Sequence[Changes]
) -> None:
    """Those who watch were told of each job that is another than before, and of no other but renewed ones."""
    assert not any(changes.is_gap for changes in heard), f"{where}: a gap"
    told = {id for changes in heard for id in changes.changed if id in after}
    gone = {each.id for changes in heard for each in changes.gone if each.id not in after}
    renewed = {each.job_id for each in call.given[0]} if call.verb == "renew" else set()
    expected = {id for id, job in after.items() if id not in before or _life(before[id]) != _life(job)}
    assert expected <= told <= expected | renewed, f"{where}: told of {told}, not of {expected}"
    assert {*before} - {*after} <= gone, f"{where}: told that {gone} went, not {before.keys() - after.keys()}"


def _life(job: Job) -> tuple[int, int]:
    return job.create_time, job.version


def _cut(verb: str, limit: int, expected: list[Job], found: list[Job]) -> list[Job]:
    """What a limit leaves: the oldest leases; and of the overdue as many as it says, leases first, but whichever."""
    chosen = [job for job in expected if job in found]
    leases, taken = (sum(job.state is JobState.IN_PROGRESS for job in jobs) for jobs in (expected, chosen))
    is_fair = len(chosen) == limit and taken == min(limit, leases)
    return chosen if verb == "overdue" and is_fair else expected[:limit]


def differences(expected: Any, found: Any, at: str = "") -> Iterator[str]:
    """Where they are not the same, each with both."""
    names = [each.name for each in fields(expected)] if is_dataclass(expected) else getattr(expected, "_fields", ())
    if names and type(expected) is type(found):
        for name in names:
            yield from differences(getattr(expected, name), getattr(found, name), f"{at}.{name}")
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        for number, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, f"{at}[{number}]")
    elif expected != found:
        yield f"  {at or 'answer'}: model {expected!r}, store {found!r}"
