"""TRANSITIONS: what the policy does stays within it, all of it is reached, and the document draws it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.domain.figure import Figure
from tests.domain.life import BOOM, NOW, TOKEN, a_job, answer, any_job, delivered, running, silent

from jobwire_server.domain import policy
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, ENDED, TRANSITIONS, WAITING, Job, JobState, Verb
from jobwire_server.domain.move import Deletion, JobChanges, Move
from jobwire_server.domain.policy import Recovery

S = JobState
Decision = Callable[[Job], Move | None]
Judgement = Callable[[Job], Move | Deletion | None]

BY_THE_STORE = frozenset({Verb.PROMOTE, Verb.CLAIM, Verb.PURGE})
"""Verbs of the store itself: no policy function decides them."""

EDITS: list[JobChanges] = [
    {},
    {"priority": 1},
    {"submission": b"edited"},
    {"schedule_time": None},
    {"schedule_time": NOW, "expire_time": None},
    {"schedule_time": NOW + 1, "expire_time": None},
]
RECOVERIES = [None, Recovery(max_interruptions=0), Recovery(max_interruptions=9), Recovery(initial_delay=DAY)]


def decisions(random: float) -> Iterator[tuple[Verb, Decision]]:
    """Every policy function with every kind of argument, asked by whoever holds TOKEN."""
    yield Verb.COMPLETE, lambda job: policy.complete(job.id, TOKEN, b"42").as_move()
    fail = partial(policy.fail, token=TOKEN, error=BOOM, now=NOW, random=random)
    for delay in (None, 0, DAY):
        yield Verb.FAIL, partial(fail, permanent=False, retry_delay=delay)
        yield Verb.FAIL, partial(fail, permanent=True, retry_delay=delay)
    for delay in (0, DAY):
        yield Verb.RELEASE, partial(policy.release, token=TOKEN, delay=delay, now=NOW, random=random)
    yield Verb.HAND_BACK, partial(policy.hand_back, token=TOKEN, now=NOW)
    for recovery in RECOVERIES:
        yield Verb.REAP, partial(policy.reap, now=NOW, random=random, recovery=recovery)
        yield Verb.RECOVER, partial(policy.recover, now=NOW, random=random, recovery=recovery)
    yield Verb.CANCEL, partial(policy.cancel, reason="stop", grace=DAY, etag=None, now=NOW)
    yield Verb.EXPIRE, policy.expire
    for changes in EDITS:
        yield Verb.EDIT, partial(policy.edit, changes=changes, payload=False, etag=None, now=NOW)
        yield Verb.EDIT, partial(policy.edit, changes=changes, payload=True, etag=None, now=NOW)
    yield Verb.REPLAY, partial(policy.replay, etag=None)


def moves(job: Job, random: float = 0.5) -> Iterator[Move]:
    """Every Move the policy has for this job whose guard would hold on this very job."""
    for verb, decide in decisions(random):
        try:
            move = decide(job)
        except JobwireError as refused:
            if refused.reason is not Reason.ILLEGAL_TRANSITION:
                raise
            continue
        if move is None:
            continue
        assert (move.job_id, move.verb) == (job.id, verb)
        if answer(job, move, NOW) is Outcome.OK:
            yield move


def deleted(job: Job, *, force: bool) -> bool:
    """The policy lets it be removed, at the version that was read."""
    try:
        deletion = policy.delete(job, force=force, etag=None)
    except JobwireError as refused:
        if refused.reason is not Reason.ILLEGAL_TRANSITION:
            raise
        return False
    assert deletion == Deletion(job.id, job.version, job.create_time)
    return True


# --- the policy stays within the table --------------------------------------------------------------------------


@given(any_job(), st.floats(0.0, 1.0, exclude_max=True))
def test_no_move_leads_anywhere_but_where_the_table_allows(job: Job, random: float) -> None:
    for move in moves(job, random):
        if move.verb in (Verb.EDIT, Verb.CANCEL) and move.to is job.state:
            continue  # a change within the state
        assert move.to in TRANSITIONS[job.state].get(move.verb, frozenset()), f"{move.verb} to {move.to}"


@given(any_job())
def test_a_move_that_stays_in_its_state_is_an_edit_or_the_request_to_cancel(job: Job) -> None:
    for move in moves(job):
        if move.to is job.state:
            assert move.verb is Verb.EDIT or (move.verb is Verb.CANCEL and job.state is S.IN_PROGRESS)


@given(any_job())
def test_a_cancel_request_lets_a_running_job_end_completed_or_canceled_only(job: Job) -> None:
    asked = job.state is S.IN_PROGRESS and job.cancel_requested
    for move in moves(job):
        if job.state is S.IN_PROGRESS and move.to is not S.IN_PROGRESS:
            assert (move.to is S.CANCELED) == (asked and move.verb is not Verb.COMPLETE)


@given(any_job())
def test_every_move_to_scheduled_says_when_it_is_due_and_after_an_attempt_never_in_the_past(job: Job) -> None:
    for move in moves(job):
        if move.to is S.SCHEDULED and job.state is S.IN_PROGRESS:
            due = move.changes["schedule_time"]
            assert due is not None
            assert due >= NOW


@given(any_job())
def test_every_move_out_of_progress_ends_the_attempt_once(job: Job) -> None:
    """It stays in the row with its outcome, or goes into the history, or (never acknowledged) was none."""
    for move in moves(job):
        if job.state is not S.IN_PROGRESS or move.to is S.IN_PROGRESS:
            continue
        in_the_row = move.outcome is not None
        in_the_history = "history" in move.changes
        was_none = move.changes.get("attempt") == job.attempt - 1
        assert [in_the_row, in_the_history, was_none].count(True) == 1
        assert in_the_row == (move.to.is_ended and not was_none)
        assert not was_none or not job.acknowledged


@given(any_job())
def test_no_job_that_may_run_again_keeps_a_token(job: Job) -> None:
    for move in moves(job):
        if move.to.is_waiting and not job.state.is_waiting:
            assert move.changes["token"] is None


@given(any_job())
def test_a_job_that_a_worker_has_is_deleted_by_force_only(job: Job) -> None:
    assert deleted(job, force=True)
    assert deleted(job, force=False) == (job.state is not S.IN_PROGRESS)


@pytest.mark.parametrize("state", S)
def test_an_etag_of_before_deletes_nothing(state: JobState) -> None:
    job = a_job(state)
    assert policy.delete(job, force=True, etag=job.etag).version == job.version
    with pytest.raises(JobwireError) as refused:
        policy.delete(job, force=True, etag=str(job.revision - 1))
    assert refused.value.reason is Reason.ETAG_MISMATCH


@given(any_job())
def test_every_move_carries_an_operation_of_its_own(job: Job) -> None:
    operations = [move.operation for move in moves(job)]
    assert len(set(operations)) == len(operations)
    assert all(len(operation) == 8 for operation in operations)


# --- each verb in each state ------------------------------------------------------------------------------------

REFUSED, LOST, NOTHING, STAYS, GONE = "refused", "lost", "nothing to do", "stays", "gone"

Q, X = "queued", "canceled"
BY_STATE: dict[str, tuple[Judgement, tuple[str, ...]]] = {
    #                        SCHEDULED  QUEUED  IN_PROGRESS  COMPLETED  FAILED  CANCELED  EXPIRED
    "complete": (
        lambda job: policy.complete(job.id, TOKEN, None).as_move(),
        (LOST, LOST, "completed", LOST, LOST, LOST, LOST),
    ),
    "fail": (
        lambda job: policy.fail(job, TOKEN, BOOM, permanent=False, retry_delay=None, now=NOW, random=0.5),
        (LOST, LOST, "scheduled", LOST, LOST, LOST, LOST),
    ),
    "fail for good": (
        lambda job: policy.fail(job, TOKEN, BOOM, permanent=True, retry_delay=None, now=NOW, random=0.5),
        (LOST, LOST, "failed", LOST, LOST, LOST, LOST),
    ),
    "release": (
        lambda job: policy.release(job, TOKEN, delay=0, now=NOW, random=0.5),
        (LOST, LOST, Q, LOST, LOST, LOST, LOST),
    ),
    "hand_back": (
        lambda job: policy.hand_back(job, TOKEN, now=NOW),
        (LOST, LOST, Q, LOST, LOST, LOST, LOST),
    ),
    "reap": (
        lambda job: policy.reap(job, now=NOW, random=0.5),
        (LOST, LOST, Q, LOST, LOST, LOST, LOST),
    ),
    "recover": (
        lambda job: policy.recover(job, now=NOW, random=0.5),
        (LOST, LOST, Q, LOST, LOST, LOST, LOST),
    ),
    "cancel": (
        lambda job: policy.cancel(job, reason="", grace=0, etag=None, now=NOW),
        (X, X, STAYS, NOTHING, NOTHING, NOTHING, NOTHING),
    ),
    "expire": (
        policy.expire,
        ("expired", "expired", REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    ),
    "replay": (
        lambda job: policy.replay(job, etag=None),
        (REFUSED, REFUSED, REFUSED, Q, Q, Q, Q),
    ),
    "delete": (
        lambda job: policy.delete(job, force=False, etag=None),
        (GONE, GONE, REFUSED, GONE, GONE, GONE, GONE),
    ),
    "delete by force": (
        lambda job: policy.delete(job, force=True, etag=None),
        (GONE,) * 7,
    ),
    "edit schedule_time to now": (
        lambda job: policy.edit(job, {"schedule_time": NOW, "expire_time": None}, payload=False, etag=None, now=NOW),
        (Q, STAYS, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    ),
    "edit schedule_time to later": (
        lambda job: policy.edit(
            job, {"schedule_time": NOW + 1, "expire_time": None}, payload=False, etag=None, now=NOW
        ),
        (STAYS, "scheduled", REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    ),
    "edit labels": (
        lambda job: policy.edit(job, {"submission": b""}, payload=False, etag=None, now=NOW),
        (STAYS,) * 7,
    ),
}


def becomes(job: Job, decide: Judgement) -> str:
    try:
        move = decide(job)
    except JobwireError:
        return REFUSED
    if move is None:
        return NOTHING
    if isinstance(move, Deletion):
        return GONE
    if (answered := answer(job, move, NOW)) is not Outcome.OK:
        return answered.value
    return STAYS if move.to is job.state else move.to.value


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("what", BY_STATE)
def test_each_decision_in_each_state(what: str, state: JobState) -> None:
    decide, expected = BY_STATE[what]
    # A running job that all may take: overdue, and for a hand-back unacknowledged.
    job = silent(acknowledged=what != "hand_back") if state is S.IN_PROGRESS else a_job(state)
    assert becomes(job, decide) == expected[list(S).index(state)]


# --- all of the table is reached --------------------------------------------------------------------------------


def situations() -> Iterator[Job]:
    """Enough jobs to reach every corner of the policy."""
    for state in S:
        yield a_job(state)
    for held in (silent, delivered, running):
        for spent in (0, 3, 5, 19, 20):
            for asked in (False, True):
                yield held(
                    score=NOW,
                    retry_count=spent,
                    interruption_count=spent,
                    release_count=spent,
                    return_count=spent,
                    cancel_requested=asked,
                )
        yield held(score=NOW, interruption_count=1)


def table() -> set[tuple[JobState, Verb, JobState | None]]:
    """(from, verb, to), where to is None for a job that leaves the store."""
    return {
        (state, verb, to)
        for state, verbs in TRANSITIONS.items()
        for verb, targets in verbs.items()
        for to in (targets or {None})
    }


def test_every_transition_is_reached_by_the_policy_or_is_the_stores_own() -> None:
    reached: set[tuple[JobState, Verb, JobState | None]] = {
        (job.state, move.verb, move.to) for job in situations() for move in moves(job) if move.to is not job.state
    }
    reached |= {(job.state, Verb.DELETE, None) for job in situations() if deleted(job, force=True)}
    decided = {edge for edge in table() if edge[1] not in BY_THE_STORE}
    assert reached == decided


def test_the_store_alone_promotes_claims_and_purges() -> None:
    own = {edge for edge in table() if edge[1] in BY_THE_STORE}
    assert own == {(S.SCHEDULED, Verb.PROMOTE, S.QUEUED), (S.QUEUED, Verb.CLAIM, S.IN_PROGRESS)} | {
        (state, Verb.PURGE, None) for state in ENDED
    }


def test_every_state_has_a_way_out_and_every_verb_a_use() -> None:
    assert set(TRANSITIONS) == set(S)
    assert all(TRANSITIONS.values())
    assert {verb for verbs in TRANSITIONS.values() for verb in verbs} == set(Verb)


def test_a_state_waits_or_runs_or_has_ended() -> None:
    assert WAITING | {S.IN_PROGRESS} | ENDED == set(S)
    assert not WAITING & ENDED
    for state in S:
        assert (state.is_waiting, state.is_ended) == (state in WAITING, state in ENDED)


# --- the document -----------------------------------------------------------------------------------------------


def expected() -> set[tuple[str, str, str]]:
    return {(state.name, verb.value, to.name if to else "gone") for state, verb, to in table()}


@pytest.fixture(scope="module")
def document(repository: Path) -> str:
    return (repository / "docs" / "state-machine.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def figure(document: str) -> Figure:
    drawn = re.search(r"^## The figure$.*?^```text\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert drawn
    return Figure(drawn[1])


def test_the_figure_draws_the_table_and_nothing_else(figure: Figure) -> None:
    drawn = [
        (state, word, arrow.target)
        for arrow in figure.arrows
        for state in figure.members(arrow.source)
        for word in arrow.words
    ]
    assert len(drawn) == len(set(drawn)), "an arrow is drawn twice"
    assert set(drawn) == expected()


def test_the_figure_has_every_state_once_in_the_group_it_belongs_to(figure: Figure) -> None:
    names = [box.name for box in figure.boxes]
    assert sorted(names) == sorted([*(state.name for state in S), "waiting", "ended", "gone"])
    assert set(figure.members("waiting")) == {state.name for state in WAITING}
    assert set(figure.members("ended")) == {state.name for state in ENDED}


def test_every_word_in_the_figure_belongs_to_a_box_or_an_arrow(figure: Figure) -> None:
    assert figure.strays() == []


def test_the_list_has_the_table_and_nothing_else(document: str) -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| `(\w+)` \| ([\w, ]+) \| [^|]+ \|$", document, re.MULTILINE)
    listed = [(state, verb, to) for state, verb, targets in rows for to in targets.split(", ")]
    assert len(listed) == len(set(listed)), "a transition is listed twice"
    assert set(listed) == expected()


TWO_BOXES = """
┌───┐        ┌───┐
│ A │─ go ──▶│ B │
└───┘        └───┘
"""


def test_a_figure_is_read_as_it_is_drawn() -> None:
    read = Figure(TWO_BOXES)
    assert [(arrow.source, arrow.words, arrow.target) for arrow in read.arrows] == [("A", ("go",), "B")]
    assert not read.strays()


@pytest.mark.parametrize(
    "broken",
    [
        TWO_BOXES.replace("─ go ──▶", "─ go    "),
        TWO_BOXES.replace("─ go ──▶", "─ go │─▶"),
        TWO_BOXES.replace("─ go ──▶", "────────"),
        TWO_BOXES.replace("─ go ──▶", "────── ▶"),
        TWO_BOXES.replace("─ go ──▶", "───────▶"),
        TWO_BOXES.replace("─ go ──▶│", "─ go ─▶ │"),
    ],
    ids=["no head", "a gap", "no head nor label", "a gap at the head", "no label", "short of its box"],
)
def test_a_broken_arrow_is_noticed(broken: str) -> None:
    try:
        read = Figure(broken)
    except AssertionError:
        return
    assert not read.arrows or read.strays()
