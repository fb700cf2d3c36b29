"""The protocol, searched through: every promise in every state that workers, servers, the store, the clock and people
can bring about between them.

`world` says which steps there are, `promises` what must hold after each, `one_row` how the store answers, and
`likeness` why there are only so many states. Every part of every guard is shown to be needed, too, and so are the rules
around them: without it the search finds a promise that breaks, and tells the story.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import example, given
from tests.domain.life import DELIVERY, NOW, TOKEN, a_job, any_job, delivered, silent
from tests.domain.likeness import ENDLESS, FRESH, TICK, Row, Sent, aged, alike, sent_of
from tests.domain.one_row import Rules, decision
from tests.domain.search import Counterexample, Explored, dead_ends, explore
from tests.domain.world import WISHES, Play, State, World, after_a_tick

from jobwire_server.domain import policy, retry
from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.guard import GUARD_TABLE, Guard, Outcome, is_overdue, judge
from jobwire_server.domain.job import SECOND, Job, JobState, RetryPolicy, Verb
from jobwire_server.domain.move import Move

V = Verb
SETTLE: Final = (V.COMPLETE, V.FAIL, V.RELEASE)

pytestmark = pytest.mark.timeout(600)  # the largest takes some ten seconds of one core, which may have much else to do

log = logging.getLogger("jobwire.tests")


@pytest.fixture(scope="module", autouse=True)
def forgotten_afterwards() -> Iterator[None]:
    """A hundred thousand states are not kept for the rest of the tests."""
    yield
    searched.cache_clear()


def a_play(*verbs: Verb, budget: int = ENDLESS, expire_time: int | None = None, **how: Any) -> Play:
    """A play in which these verbs are decided by whoever may."""
    retries = RetryPolicy(
        max_retries=budget, max_interruptions=budget, initial_delay=SECOND, max_delay=SECOND, jitter=0.0
    )
    job = a_job(
        retry=retries,
        expire_time=expire_time,
        retention=how.pop("retention", DELIVERY),
        execution_timeout=how.pop("execution_timeout", None),
    )
    return Play(verbs=frozenset(verbs), job=job, **how)


@dataclass(frozen=True, slots=True)
class Expected:
    """A play, and how many states it has at least: a search that has gone blind finds fewer."""

    play: Play
    states: int


PLAYS: Final = {
    "anything": Expected(a_play(*V), 50_000),
    "outages": Expected(a_play(V.COMPLETE, V.RELEASE, V.REAP, V.CANCEL, V.HAND_BACK, has_outages=True), 10_000),
    "two jobs, a credit of one": Expected(a_play(V.COMPLETE, V.REAP, jobs=2, sent_at_most=1), 15_000),
    "small budgets": Expected(a_play(*SETTLE, V.REAP, V.HAND_BACK, budget=1, sent_at_most=1), 5_000),
    "an execution timeout": Expected(
        a_play(V.COMPLETE, V.REAP, V.CANCEL, execution_timeout=TICK + SECOND, has_outages=True), 4_000
    ),
    "a job that expires": Expected(
        a_play(V.COMPLETE, V.RELEASE, V.REAP, V.HAND_BACK, V.EXPIRE, V.REPLAY, expire_time=NOW + TICK + SECOND), 2_000
    ),
    "no retention": Expected(a_play(*SETTLE, V.REAP, V.CANCEL, retention=0), 5_000),
}


@cache
def searched(name: str) -> tuple[Explored, frozenset[tuple[Verb, Outcome]]]:
    """Everything that can come of a play, and what the store has answered in it."""
    world = World(PLAYS[name].play)
    with pytest.MonkeyPatch.context() as small:
        # The rows of releases and returns that end a job, short enough to be searched to their ends.
        small.setattr(policy, "MAX_RELEASES", 1)
        small.setattr(policy, "MAX_RETURNS", 3)
        small.setattr(retry, "FREE_RETURNS", 1)
        explored = explore(world)
    log.info("%s: %d states, %d transitions", name, len(explored.states), explored.transitions)
    return explored, frozenset(world.seen)


@pytest.mark.parametrize("name", PLAYS)
def test_every_promise_holds_whatever_happens(name: str) -> None:
    explored, _ = searched(name)
    assert len(explored.states) >= PLAYS[name].states
    assert explored.transitions >= 5 * len(explored.states)


@pytest.mark.parametrize("name", PLAYS)
def test_whatever_has_happened_a_job_can_still_end(name: str) -> None:
    def is_end(state: State) -> bool:
        return all(life.row is None or life.row.job.state.is_ended for life in state.lives)

    assert not dead_ends(searched(name)[0], is_end)


@pytest.mark.parametrize("name", PLAYS)
def test_whatever_has_happened_the_clock_alone_takes_a_job_from_a_silent_worker(name: str) -> None:
    leases = {
        (life.row, state.recovered_at)
        for state in searched(name)[0].states
        for life in state.lives
        if life.row is not None and life.row.job.state is JobState.IN_PROGRESS
    }
    assert leases
    assert max(ticks_until_reaped(row, recovered_at) for row, recovered_at in leases) == 2  # a lease


def ticks_until_reaped(row: Row, recovered_at: int) -> int:
    """How long it takes until the reaper may take the job, when nobody is heard any more."""
    for ticks in range(10):
        if is_overdue(row.job, now=NOW, recovered_at=recovered_at):
            move = policy.reap(row.job, now=NOW, random=0.5)
            assert judge(move.guard, row.job, operation=move.operation, now=NOW, recovered_at=recovered_at) == "ok"
            return ticks
        row, recovered_at = aged(row), after_a_tick(recovered_at)
    raise AssertionError("the job stays with its worker for ever")


def test_the_searches_have_met_every_answer_to_every_verb() -> None:
    seen = {answer for name in PLAYS for answer in searched(name)[1]}
    expected = {(verb, outcome) for verb, row in GUARD_TABLE.items() for outcome in row.values()}
    finds = {(verb, Outcome.OK) for verb in (V.CLAIM, V.PROMOTE, V.PURGE)}
    deletes = {(V.DELETE, outcome) for outcome in (Outcome.OK, Outcome.GONE, Outcome.STALE)}
    assert seen == expected | finds | deletes


@given(any_job())
@example(silent(limit_time=NOW))
def test_what_likeness_takes_out_of_a_row_changes_no_decision(job: Job) -> None:
    job = job._replace(version=FRESH, attempt=int(job.state is JobState.IN_PROGRESS))
    for verb, detail in WISHES:
        assert decided(job, verb, detail) is decided(alike(job), verb, detail), verb


def decided(job: Job, verb: Verb, detail: str) -> Sent | None:
    """What is sent for the job, as far as that matters; None where nothing is, or nothing that could be applied."""
    try:
        move = decision(job, verb, TOKEN, detail)
    except JobwireError:
        return None
    if move is None or (move.guard.token is not None and job.state is not JobState.IN_PROGRESS):
        return None
    return sent_of(replace(move, operation=b""), b"", "")


# --- each guard, and each rule around it, is needed -------------------------------------------------------------


class Without(Rules):
    """One part of one verb's guard is not looked at."""

    def __init__(self, verb: Verb, part: str) -> None:
        self._verb = verb
        self._unset: dict[str, Any] = {part: getattr(Guard(), part)}

    def sent(self, move: Move) -> Move:
        return replace(move, guard=replace(move.guard, **self._unset)) if move.verb is self._verb else move


PARTS: Final = {
    (V.COMPLETE, "token"): "an ended job changed",
    (V.FAIL, "token"): "from COMPLETED to SCHEDULED",
    (V.FAIL, "version"): "a cancel request was lost",
    (V.RELEASE, "token"): "from COMPLETED to QUEUED",
    (V.RELEASE, "version"): "a cancel request was lost",
    (V.HAND_BACK, "token"): "from COMPLETED to QUEUED",
    (V.HAND_BACK, "version"): "a cancel request was lost",
    (V.HAND_BACK, "unacknowledged"): "a worker that was heard has lost its job",
    (V.REAP, "token"): "an ended job changed",
    (V.REAP, "version"): "a cancel request was lost",
    (V.REAP, "overdue"): "a living lease was reaped",
    (V.RECOVER, "token"): "an ended job changed",
    (V.RECOVER, "version"): "an attempt that was started was not counted",
    (V.CANCEL, "version"): "from IN_PROGRESS to CANCELED",
    (V.EXPIRE, "version"): "an ended job changed",
    (V.EDIT, "version"): "from IN_PROGRESS to QUEUED",
    (V.REPLAY, "version"): "from IN_PROGRESS to QUEUED",
    (V.DELETE, "version"): "a job was deleted under its worker",
}
"""Each part of each guard, and what breaks without it."""

SECOND_LOCKS: Final = {(V.HAND_BACK, "token"), (V.HAND_BACK, "unacknowledged"), (V.REAP, "token"), (V.RECOVER, "token")}
"""Parts that stop servers that do not look at what they have read. For those that do, the version says as much."""


def without(verb: Verb, part: str, *, readers_look: bool) -> World:
    expire_time = NOW if verb is V.EXPIRE else None
    verbs = (V.COMPLETE, V.RELEASE, V.CANCEL, verb)
    return World(a_play(*verbs, expire_time=expire_time, readers_look=readers_look), Without(verb, part))


@pytest.mark.parametrize(("verb", "part"), PARTS)
def test_without_any_part_of_its_guard_a_verb_breaks_a_promise(verb: Verb, part: str) -> None:
    with pytest.raises(Counterexample, match=PARTS[verb, part]):
        explore(without(verb, part, readers_look=False))


@pytest.mark.parametrize(("verb", "part"), PARTS)
def test_with_servers_that_look_at_what_they_read_only_second_locks_could_go(verb: Verb, part: str) -> None:
    world = without(verb, part, readers_look=True)
    if (verb, part) in SECOND_LOCKS:
        assert len(explore(world).states) > 1000
    else:
        with pytest.raises(Counterexample):
            explore(world)


def test_the_parts_are_those_that_the_policy_sets() -> None:
    jobs = {V.EXPIRE: a_job(expire_time=NOW), V.REPLAY: a_job(JobState.FAILED)}
    parts = set()
    for verb in {verb for verb, _ in PARTS}:
        move = decision(jobs.get(verb, delivered()), verb, TOKEN, "force" if verb is V.DELETE else "")
        assert move is not None
        unset = Guard()
        parts |= {
            (verb, part.name) for part in fields(Guard) if getattr(move.guard, part.name) != getattr(unset, part.name)
        }
    # An id lives once in this world. Its second life is in tests/store: forced in test_delete.py, met in test_model.py.
    lives = {(verb, part) for verb, part in parts if part == "create_time"}
    assert {verb for verb, _ in lives} == {verb for verb, part in parts if part == "version"}
    assert parts - lives == set(PARTS)
    assert {verb for verb, _ in PARTS} == set(GUARD_TABLE) | {V.DELETE}


class CompletesInAnyState(Rules):
    def judge(self, move: Move, job: Job | None, *, recovered_at: int) -> Outcome:
        if move.verb is V.COMPLETE and job is not None and job.token == move.guard.token:
            return Outcome.OK
        return super().judge(move, job, recovered_at=recovered_at)


class RenewsForAnybody(Rules):
    def may_renew(self, job: Job, token: bytes) -> bool:
        return job.state is JobState.IN_PROGRESS


class LooksUpFirst(Rules):
    looks_up_first = True


class DecidesRepeatsAnew(Rules):
    decides_repeats_anew = True


class ForgetsOperations(Rules):
    def judge(self, move: Move, job: Job | None, *, recovered_at: int) -> Outcome:
        return super().judge(replace(move, operation=b""), job, recovered_at=recovered_at)


class ForgetsOutages(Rules):
    def judge(self, move: Move, job: Job | None, *, recovered_at: int) -> Outcome:
        return super().judge(move, job, recovered_at=0)


class GivesWithoutCredit(Rules):
    def has_credit(self, held: int, max_in_flight: int) -> bool:
        return True


class KeepsTokensOfLostLeases(Rules):
    def sent(self, move: Move) -> Move:
        history = move.changes.get("history", ())
        if move.verb is not V.REAP or not history:
            return move
        lost = replace(history[-1], token=move.guard.token or b"")
        return replace(move, changes={**move.changes, "history": (*history[:-1], lost)})


class ReplaysWithoutHistory(Rules):
    def sent(self, move: Move) -> Move:
        return replace(move, changes={**move.changes, "history": ()}) if move.verb is V.REPLAY else move


class ReplaysWithTheOldCancel(Rules):
    def sent(self, move: Move) -> Move:
        kept = {name: value for name, value in move.changes.items() if name != "cancel_requested"}
        return replace(move, changes=kept) if move.verb is V.REPLAY else move  # type: ignore[arg-type]  # by name


WEAKER: Final[dict[type[Rules], tuple[Play, str]]] = {
    CompletesInAnyState: (a_play(*SETTLE), "an ended job changed by complete"),
    RenewsForAnybody: (a_play(*SETTLE), "a worker whose lease is lost was told that it has the job"),
    LooksUpFirst: (a_play(*SETTLE), "told LEASE_LOST, and it had settled"),
    DecidesRepeatsAnew: (a_play(V.COMPLETE, V.REPLAY), "one request to replay took effect twice"),
    ForgetsOperations: (a_play(V.CANCEL), "that was applied a moment ago was refused"),
    ForgetsOutages: (a_play(V.COMPLETE, V.REAP, has_outages=True), "before its worker could be heard after an outage"),
    GivesWithoutCredit: (a_play(V.COMPLETE, jobs=2), "more than its credit allows"),
    KeepsTokensOfLostLeases: (a_play(V.COMPLETE, V.REAP), "told that it settled otherwise, and did not"),
    ReplaysWithoutHistory: (a_play(*SETTLE, V.REPLAY), "a replay has forgotten an attempt"),
    ReplaysWithTheOldCancel: (a_play(V.CANCEL, V.REPLAY), "being canceled that nobody asked to cancel"),
}
"""A weaker rule, where it shows, and what it breaks."""


@pytest.mark.parametrize("rules", WEAKER, ids=lambda rules: rules.__name__)
def test_a_weaker_rule_breaks_a_promise(rules: type[Rules]) -> None:
    play, broken = WEAKER[rules]
    with pytest.raises(Counterexample, match=broken):
        explore(World(play, rules()))


def test_a_counterexample_reads_like_a_story() -> None:
    with pytest.raises(Counterexample) as found:
        explore(without(V.REAP, "overdue", readers_look=True))
    assert str(found.value).splitlines() == [
        "a living lease was reaped:",
        "  1. worker A claims the job, without a delivery timeout  [IN_PROGRESS, with A, heard]",
        "  2. time passes  [IN_PROGRESS, with A, heard]",
        "  3. time passes  [IN_PROGRESS, with A, heard, overdue]",
        "  4. a reap (to QUEUED) is sent, decided from the job as it is  [IN_PROGRESS, with A, heard, overdue]",
        "  5. worker A beats: OK  [IN_PROGRESS, with A, heard]",
        "  6. a reap (to QUEUED) arrives",
        "     ... and a living lease was reaped",
    ]
