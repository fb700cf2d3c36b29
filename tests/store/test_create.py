from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.making import START, Clock, claim, get, is_there, new_job, put, shove, standing_of, wish

from jobwire_server.domain.job import DAY, MINUTE, SECOND, JobState, RetryPolicy
from jobwire_server.store.base import CreateOutcome, Store

ASKED = (
    *("queue", "type", "user_id", "priority", "submission", "retry"),
    *("execution_timeout", "retention", "schedule_time", "expire_time"),
)


async def test_a_created_job_is_stored_as_it_was_asked_for(store: Store) -> None:
    asked = new_job(
        "j",
        queue="q",
        type="mail",
        user_id="u",
        priority=2,
        submission=b"\x00\xffpayload",
        retry=RetryPolicy(7, 8, 1.1, 9, 0.3, 10),
        execution_timeout=5,
        retention=6,
        schedule_time=START - 1,
        expire_time=START + 99,
    )
    (created,) = await store.create([asked])
    assert created.outcome is CreateOutcome.CREATED
    job = await get(store, "j")
    assert created.standing == standing_of(job)
    for name in ASKED:
        assert getattr(job, name) == getattr(asked, name), name
    assert (job.state, job.create_time, job.version, job.attempt) == (JobState.QUEUED, START, 1, 0)


async def test_a_brief_create_stores_the_same_and_tells_the_outcome_alone(store: Store) -> None:
    await put(store, "taken")
    asked = [new_job("j", queue="q"), new_job("taken"), new_job("taken", digest=b"other"), new_job("j", queue="q")]
    made = await store.create(asked, brief=True)
    assert [each.outcome for each in made] == ["created", "existed", "id_taken", "existed"]
    assert [each.job_id for each in made] == ["j", "taken", "taken", "j"]
    assert made[0].standing is None
    await store.create([new_job("told", queue="q")])
    brief, told = await get(store, "j"), await get(store, "told")
    assert brief._replace(id="", score=0, queue_time=0) == told._replace(id="", score=0, queue_time=0)


async def test_a_job_for_later_is_scheduled_and_has_no_queue_time(store: Store) -> None:
    job = await put(store, "later", schedule_time=START + 1)
    assert (job.state, job.score, job.queue_time) == (JobState.SCHEDULED, START + 1, None)
    assert (await put(store, "now", schedule_time=START)).state is JobState.QUEUED


async def test_queue_position_counts_the_queued_jobs_of_that_queue(store: Store) -> None:
    created = await store.create(
        [new_job("a"), new_job("b"), new_job("c", schedule_time=START + SECOND), new_job("d", queue="other")]
    )
    assert [each.queue_position for each in created] == [1, 2, 0, 1]


async def test_the_same_id_and_content_again_is_the_same_create(store: Store) -> None:
    await put(store, "j")
    await claim(store)
    (again,) = await store.create([new_job("j")])
    assert again.outcome is CreateOutcome.EXISTED
    assert again.job == await get(store, "j")
    assert again.queue_position == 0


async def test_the_same_id_with_other_content_is_refused(store: Store) -> None:
    before = await put(store, "j")
    (again,) = await store.create([new_job("j", digest=b"other")])
    assert (again.outcome, again.job_id, again.job) == (CreateOutcome.ID_TAKEN, "j", None)
    assert await get(store, "j") == before


async def test_an_id_that_the_server_made_is_never_a_repeat(store: Store) -> None:
    await store.create([new_job("j", id_given=False)])
    (again,) = await store.create([new_job("j", id_given=False)])
    assert again.outcome is CreateOutcome.ID_TAKEN


async def test_a_repeated_request_answers_the_first_job_whatever_id_it_brings(store: Store) -> None:
    await store.create([new_job("first", request_key=b"k", digest=b"d", id_given=False)])
    (again,) = await store.create([new_job("second", request_key=b"k", digest=b"d", id_given=False)])
    assert (again.outcome, again.job_id) == (CreateOutcome.EXISTED, "first")
    assert again.job == await get(store, "first")
    assert not await is_there(store, "second")


async def test_a_request_id_with_other_content_is_refused(store: Store) -> None:
    await store.create([new_job("first", request_key=b"k", digest=b"d")])
    (again,) = await store.create([new_job("second", request_key=b"k", digest=b"e")])
    assert (again.outcome, again.job_id, again.job) == (CreateOutcome.REQUEST_REUSED, "first", None)
    assert not await is_there(store, "second")


async def test_a_request_is_remembered_when_its_job_has_gone(store: Store) -> None:
    await store.create([new_job("j", request_key=b"k", retention=0)])
    assert await shove(store, "j", JobState.CANCELED) is None
    (again,) = await store.create([new_job("j", request_key=b"k")])
    assert (again.outcome, again.job_id, again.job) == (CreateOutcome.EXISTED, "j", None)
    assert not await is_there(store, "j")


async def test_a_request_is_forgotten_after_a_day(store: Store, clock: Clock) -> None:
    await store.create([new_job("first", request_key=b"k", digest=b"d")])
    clock.now += DAY - 1
    (again,) = await store.create([new_job("second", request_key=b"k", digest=b"d")])
    assert again.outcome is CreateOutcome.EXISTED
    clock.now += 1
    (again,) = await store.create([new_job("second", request_key=b"k", digest=b"d")])
    assert again.outcome is CreateOutcome.CREATED


async def test_a_repeat_found_by_its_id_is_remembered_by_its_request_too(store: Store) -> None:
    await store.create([new_job("j", retention=0)])
    await store.create([new_job("j", retention=0, request_key=b"k")])
    await shove(store, "j", JobState.CANCELED)
    (again,) = await store.create([new_job("j", retention=0, request_key=b"k")])
    assert again.outcome is CreateOutcome.EXISTED


async def test_a_batch_is_judged_in_order(store: Store) -> None:
    created = await store.create([new_job("a"), new_job("a"), new_job("a", digest=b"x"), new_job("b")])
    assert [each.outcome for each in created] == ["created", "existed", "id_taken", "created"]


async def test_a_refused_create_makes_no_queue(store: Store) -> None:
    await put(store, "j")
    (refused,) = await store.create([new_job("j", digest=b"x", queue="never")])
    assert refused.outcome is CreateOutcome.ID_TAKEN
    assert (await store.claim("never", [wish()])).remaining == 0


@pytest.mark.parametrize("change", [0, -MINUTE])
async def test_queue_time_rises_strictly_while_the_clock_stands_or_goes_back(
    store: Store, clock: Clock, change: int
) -> None:
    times = []
    for number in range(5):
        times.append((await put(store, f"j{number}")).queue_time or 0)
        clock.now += change
    assert times == sorted(set(times))


HARD_TEXTS = [
    "",
    "'",
    '"; DROP TABLE job; --',
    "\n\r\t\u2028",
    "𝕁👩‍👩‍👧",
    "\ufeff",
    "007",
    "1e999",
    "\\u0041",
    "é",
    "e\u0301",
]
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50) | st.sampled_from(HARD_TEXTS)
NUMBERS = st.integers(0, 2**62) | st.sampled_from([0, 2**53, 2**53 + 1, 2**63 - 1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(type=TEXTS, user_id=TEXTS, submission=st.binary(max_size=100), number=NUMBERS, multiplier=st.floats(0, 1e300))
async def test_hard_text_and_large_numbers_come_back_as_they_went(
    store: Store, type: str, user_id: str, submission: bytes, number: int, multiplier: float
) -> None:
    id = f"j{hash((type, user_id, submission, number, multiplier))}"
    retry = RetryPolicy(3, number, multiplier, number, 0.1, 3)
    asked = new_job(
        id,
        type=type,
        user_id=user_id,
        submission=submission,
        retry=retry,
        execution_timeout=number,
        retention=number,
        expire_time=number,
    )
    await store.create([asked])
    job = await get(store, id)
    assert (job.type, job.user_id, job.submission, job.retry) == (type, user_id, submission, retry)
    assert (job.execution_timeout, job.retention, job.expire_time) == (number, number, number)
