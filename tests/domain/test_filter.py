"""Which jobs a filter means, and where in its listing a job stands."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.domain.life import NOW, a_job, any_job

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import ENDED, Job, JobState

JOB = a_job(JobState.FAILED, queue="q", user_id="ann", type="mail", create_time=NOW, submission=b"labels")

PASSING: dict[str, list[Any]] = {
    "queues": [frozenset({"q"}), frozenset({"other", "q"})],
    "states": [frozenset({JobState.FAILED}), ENDED],
    "user_id": ["ann"],
    "types": [frozenset({"mail"}), frozenset({"mail", "other"})],
    "created_from": [NOW, NOW - 1, 0],
    "created_before": [NOW + 1],
    "submission_matches": [lambda submission: submission == b"labels"],
}
"""Part of a filter → values that let JOB pass."""

REFUSING: dict[str, list[Any]] = {
    "queues": [frozenset({"other"}), frozenset({"Q"})],
    "states": [frozenset(JobState) - {JobState.FAILED}],
    "user_id": ["Ann", "ann "],
    "types": [frozenset({"MAIL"}), frozenset({""})],
    "created_from": [NOW + 1],
    "created_before": [NOW, NOW - 1, 0],
    "submission_matches": [lambda submission: submission != b"labels"],
}
"""Part of a filter → values that do not."""

PARTS = [field.name for field in fields(JobFilter)]
COUNTED = {"queues", "states"}
"""Parts that counters know."""


def test_every_part_is_tried() -> None:
    assert list(PASSING) == list(REFUSING) == PARTS


@given(any_job())
def test_an_empty_filter_lets_every_job_pass(job: Job) -> None:
    assert JobFilter().is_empty
    assert JobFilter().matches(job)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_set_narrows(part: str) -> None:
    for value in PASSING[part]:
        assert JobFilter(**{part: value}).matches(JOB), value
    for value in REFUSING[part]:
        assert not JobFilter(**{part: value}).matches(JOB), value


@pytest.mark.parametrize("part", PARTS)
def test_one_part_that_refuses_is_enough(part: str) -> None:
    passing = {name: values[0] for name, values in PASSING.items()}
    assert JobFilter(**passing).matches(JOB)
    for value in REFUSING[part]:
        assert not JobFilter(**{**passing, part: value}).matches(JOB), value


@pytest.mark.parametrize("part", PARTS)
def test_a_filter_with_a_part_is_not_empty(part: str) -> None:
    for value in (*PASSING[part], *REFUSING[part]):
        assert not JobFilter(**{part: value}).is_empty, value


@pytest.mark.parametrize("part", PARTS)
def test_counters_know_queues_and_states_and_nothing_else(part: str) -> None:
    assert not JobFilter().needs_scan
    for value in (*PASSING[part], *REFUSING[part]):
        assert JobFilter(**{part: value}).needs_scan is (part not in COUNTED), value


def test_what_stands_inside_the_submission_is_asked_of_the_submission_alone() -> None:
    asked: list[bytes] = []

    def matches(submission: bytes) -> bool:
        asked.append(submission)
        return False

    assert not JobFilter(submission_matches=matches).matches(JOB)
    assert asked == [b"labels"]


@given(any_job())
def test_a_job_stands_where_its_index_has_it(job: Job) -> None:
    wanted = JobFilter(queues=frozenset({job.queue}), types=frozenset({job.type}))
    assert wanted.position_of(job) == Position(job.queue, job.state, job.score, job.id)
    assert JobFilter().position_of(job) == wanted.position_of(job)


@given(any_job(), st.sampled_from(JobState))
def test_in_a_users_listing_queue_and_state_mean_nothing(job: Job, state: JobState) -> None:
    wanted = JobFilter(user_id=job.user_id)
    position = wanted.position_of(job)
    assert (position.score, position.id) == (job.create_time, job.id)
    assert wanted.position_of(job._replace(state=state, queue="elsewhere", score=0)) == position
