"""The guards: `judge` against GUARD_TABLE, cell by cell, and `docs/guards.md` against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.domain.life import (
    DELIVERY,
    LEASE,
    NOW,
    OTHER_TOKEN,
    TOKEN,
    a_job,
    any_job,
    delivered,
    fail,
    release,
    running,
)

from jobwire_server.domain import policy
from jobwire_server.domain.guard import GUARD_TABLE, Guard, Outcome, Situation, is_overdue, judge
from jobwire_server.domain.job import SECOND, Job, JobState, Verb
from jobwire_server.domain.move import Move

OPERATION = b"this one"


def undelivered() -> Job:
    """Unacknowledged and overdue: what every verb of workers and maintenance may meet."""
    return delivered(lease_expire_time=NOW - SECOND, score=NOW - SECOND)


def canceling(job: Job) -> Move:
    move = policy.cancel(job, reason="", grace=0, etag=None, now=NOW)
    assert move is not None
    return move


READ: dict[Verb, tuple[Job, Callable[[Job], Move]]] = {
    # The job as it was read, and the verb's Move for it.
    Verb.COMPLETE: (undelivered(), lambda job: policy.complete(job.id, TOKEN, None).as_move()),
    Verb.FAIL: (undelivered(), fail),
    Verb.RELEASE: (undelivered(), release),
    Verb.HAND_BACK: (undelivered(), lambda job: policy.hand_back(job, TOKEN, now=NOW)),
    Verb.REAP: (undelivered(), lambda job: policy.reap(job, now=NOW, random=0.5)),
    Verb.RECOVER: (undelivered(), lambda job: policy.recover(job, now=NOW, random=0.5)),
    Verb.CANCEL: (undelivered(), canceling),
    Verb.EXPIRE: (a_job(expire_time=NOW), policy.expire),
    Verb.EDIT: (undelivered(), lambda job: policy.edit(job, {"priority": 1}, payload=False, etag=None, now=NOW)),
    Verb.REPLAY: (a_job(JobState.FAILED), lambda job: policy.replay(job, etag=None)),
}


@dataclass(frozen=True, slots=True)
class Meeting:
    """What the change meets when it reaches the store."""

    job: Job | None
    note: str = ""
    recovered_at: int = 0


def meetings(situation: Situation, read: Job) -> Iterator[Meeting]:
    """Every form the situation can take for a job that was read like this."""
    version = read.version + 1
    match situation:
        case Situation.UNCHANGED:
            yield Meeting(read)
        case Situation.ABSENT:
            yield Meeting(None)
        case Situation.NOT_LEASED:
            for state in JobState:
                if state is not JobState.IN_PROGRESS:
                    # The digest stays in the row of an ended job: it must guard nothing there.
                    for token in (TOKEN, None):
                        yield Meeting(a_job(state, token=token, version=version), f"{state}, {token!r}")
        case Situation.OTHER_TOKEN:
            yield Meeting(running(token=OTHER_TOKEN, version=version))
        case Situation.CHANGED:
            yield Meeting(read._replace(version=version, cancel_requested=True))
        case Situation.ACKNOWLEDGED:
            yield Meeting(read._replace(version=version, acknowledged=True, score=NOW + LEASE))
        case Situation.NOT_DUE:
            yield Meeting(read._replace(score=NOW + 1), "by a microsecond")
            yield Meeting(read._replace(score=NOW + LEASE), "renewed")
        case Situation.AFTER_OUTAGE:
            yield Meeting(read, "just now", recovered_at=NOW)
            if read.lease_expire_time is not None and read.claim_time is not None:
                pause = read.lease_expire_time - read.claim_time
                yield Meeting(read, "almost as long ago as the delivery lasts", recovered_at=NOW - pause + 1)
        case Situation.REPEATED:
            for state in JobState:
                job = a_job(state, token=OTHER_TOKEN, version=version, last_operation=OPERATION)
                yield Meeting(job, state, recovered_at=NOW)


CELLS = [(verb, situation) for verb in GUARD_TABLE for situation in Situation]


@pytest.mark.parametrize(("verb", "situation"), CELLS, ids=[f"{v}, {s}" for v, s in CELLS])
def test_judge_answers_what_the_table_says(verb: Verb, situation: Situation) -> None:
    read, decide = READ[verb]
    guard = decide(read).guard

    met = list(meetings(situation, read))
    assert met
    for meeting in met:
        answered = judge(guard, meeting.job, operation=OPERATION, now=NOW, recovered_at=meeting.recovered_at)
        assert answered is GUARD_TABLE[verb][situation], meeting.note


def test_the_table_has_every_verb_that_is_a_move_and_every_situation() -> None:
    # Three are verbs of the store itself: it finds the jobs and changes them in one step. A deletion is no Move.
    assert set(GUARD_TABLE) == set(Verb) - {Verb.PROMOTE, Verb.CLAIM, Verb.PURGE, Verb.DELETE}
    assert set(GUARD_TABLE) == set(READ)
    assert all(set(row) == set(Situation) for row in GUARD_TABLE.values())


def test_not_leased_is_met_in_each_of_the_six_states() -> None:
    states = {meeting.job.state for meeting in meetings(Situation.NOT_LEASED, running()) if meeting.job}
    assert states == set(JobState) - {JobState.IN_PROGRESS}


def test_no_operation_repeats_no_operation() -> None:
    """A job that no Move has touched yet remembers an empty operation; an empty one must not match it."""
    job = running(last_operation=b"")
    guard = Guard(token=OTHER_TOKEN)
    assert judge(guard, job, operation=b"", now=NOW, recovered_at=0) is Outcome.LOST


@given(any_job())
def test_taking_back_a_job_that_nobody_holds_answers_lost(job: Job) -> None:
    """Between the reading and the second decision a job may have left its worker, and then it has no token."""
    for move in (policy.reap(job, now=NOW, random=0.5), policy.recover(job, now=NOW, random=0.5)):
        answered = judge(move.guard, job, operation=move.operation, now=NOW, recovered_at=0)
        if job.state is not JobState.IN_PROGRESS:
            assert answered is Outcome.LOST


# --- overdue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "recovered_at", "overdue"),
    [
        (NOW + 1, 0, False),
        (NOW, 0, True),
        (NOW - 1, 0, True),
        (NOW - 1, NOW, False),
        (NOW - 1, NOW - LEASE + 1, False),
        (NOW - 1, NOW - LEASE, True),
        (NOW + 1, NOW - LEASE, False),
    ],
    ids=[
        "a microsecond ahead",
        "now",
        "past",
        "just back from an outage",
        "not yet a lease time after it",
        "a whole lease time after it",
        "ahead, long after it",
    ],
)
def test_is_overdue(score: int, recovered_at: int, overdue: bool) -> None:
    assert is_overdue(running(score=score), now=NOW, recovered_at=recovered_at) is overdue


def test_after_an_outage_a_delivery_has_its_own_time_not_the_lease_it_never_got() -> None:
    job = delivered(claim_time=NOW - 2 * DELIVERY, lease_expire_time=NOW - DELIVERY, score=NOW - DELIVERY)
    assert not is_overdue(job, now=NOW, recovered_at=NOW - DELIVERY + 1)
    assert is_overdue(job, now=NOW, recovered_at=NOW - DELIVERY)


@given(st.integers(NOW - 2 * LEASE, NOW + LEASE), st.integers(NOW - 2 * LEASE, NOW))
def test_after_an_outage_every_lease_has_its_own_whole_time_to_be_renewed(score: int, recovered_at: int) -> None:
    for duration in (SECOND, LEASE):
        job = running(score=score, lease_duration=duration)
        if is_overdue(job, now=NOW, recovered_at=recovered_at):
            assert score <= NOW
            assert NOW - recovered_at >= duration


# --- the document ------------------------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def written_table(text: str) -> dict[tuple[str, str], str]:
    """(verb, situation) → outcome, from the table under the heading `The table`."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    [table] = [part for part in section if part.startswith("The table\n")]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    head = cells(lines[0])
    found = {}
    for line in lines[2:]:
        verb, *outcomes = cells(line)
        for situation, outcome in zip(head[1:], outcomes, strict=True):
            key = (verb.strip("`"), situation)
            assert key not in found, f"{key} stands twice"
            found[key] = outcome.strip("*")
    return found


def test_the_document_shows_the_table_cell_by_cell(repository: Path) -> None:
    written = written_table((repository / "docs" / "guards.md").read_text(encoding="utf-8"))
    expected = {
        (verb.value, situation.value): outcome.name
        for verb, row in GUARD_TABLE.items()
        for situation, outcome in row.items()
    }
    assert written == expected


def test_the_document_gives_a_reason_for_every_verb_and_explains_every_situation(repository: Path) -> None:
    text = (repository / "docs" / "guards.md").read_text(encoding="utf-8")
    reasons = text.partition("## Why each guard")[2]
    for verb in GUARD_TABLE:
        assert re.search(rf"^\| `{verb}` \| [^|]+ \| [^|]{{30,}} \|$", reasons, re.MULTILINE), verb
    for situation in Situation:
        assert re.search(rf"^- \*\*{situation}\*\*: .{{20,}}$", text, re.MULTILINE), situation


def parts_of(guard: Guard) -> set[str]:
    named = {
        "token": guard.token is not None,
        "version": guard.version is not None,
        "unacknowledged": guard.unacknowledged,
        "overdue": guard.overdue,
    }
    return {name for name, is_set in named.items() if is_set}


@pytest.mark.parametrize("verb", GUARD_TABLE)
def test_the_document_names_the_parts_of_each_guard(verb: Verb, repository: Path) -> None:
    text = (repository / "docs" / "guards.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{verb}` \| ([^|]+) \|", text.partition("## Why each guard")[2], re.MULTILINE)
    assert row
    read, decide = READ[verb]
    assert set(re.findall(r"\w+", row[1])) == parts_of(decide(read).guard)
