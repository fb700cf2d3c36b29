"""When a job may run again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.domain.life import retry_policies

from jobwire_server.domain.job import DAY, HOUR, MINUTE, SECOND, RetryPolicy
from jobwire_server.domain.retry import FREE_RETURNS, MAX_RETURNS, backoff, return_delay

retries = st.integers(1, 1001)
randoms = st.floats(0.0, 1.0, exclude_max=True)
absurd = st.integers(1, 10**30)


@given(retry_policies(), retries | absurd, randoms)
def test_a_delay_is_never_negative_and_never_over_max_delay(policy: RetryPolicy, retry: int, random: float) -> None:
    assert 0 <= backoff(policy, retry, random) <= policy.max_delay


@given(retry_policies(), retries, retries)
def test_without_jitter_a_later_retry_never_waits_less(policy: RetryPolicy, one: int, other: int) -> None:
    steady = replace(policy, jitter=0.0)
    sooner, later = sorted((one, other))
    assert backoff(steady, sooner, 0.5) <= backoff(steady, later, 0.5)


@given(retry_policies(), absurd.filter(lambda retry: retry > 10_000))
def test_an_absurd_retry_number_waits_max_delay(policy: RetryPolicy, retry: int) -> None:
    assume(policy.multiplier > 1.01)
    steady = replace(policy, jitter=0.0)
    assert backoff(steady, retry, 0.5) == (policy.max_delay if policy.initial_delay else 0)


@given(retry_policies(), retries | absurd, randoms)
def test_an_initial_delay_of_0_means_at_once_for_every_retry(policy: RetryPolicy, retry: int, random: float) -> None:
    assert backoff(replace(policy, initial_delay=0), retry, random) == 0


@given(retry_policies(), retries, randoms)
def test_jitter_spreads_a_delay_by_no_more_than_its_share(policy: RetryPolicy, retry: int, random: float) -> None:
    plain = backoff(replace(policy, jitter=0.0), retry, 0.5)
    spread = backoff(policy, retry, random)
    # One microsecond for the rounding of each, and a double's last digits of a year in microseconds.
    slack = 2 + plain * 1e-9
    assert plain * (1 - policy.jitter) - slack <= spread <= plain * (1 + policy.jitter) + slack


@given(retry_policies(), retries, randoms, randoms)
def test_a_larger_random_number_never_means_a_shorter_delay(
    policy: RetryPolicy, retry: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert backoff(policy, retry, low) <= backoff(policy, retry, high)


@pytest.mark.parametrize(
    ("retry", "delay"),
    [(1, SECOND), (2, 2 * SECOND), (3, 4 * SECOND), (12, 2048 * SECOND), (13, HOUR), (1000, HOUR)],
)
def test_the_default_policy_doubles_from_one_second_to_one_hour(retry: int, delay: int) -> None:
    assert backoff(replace(RetryPolicy(), jitter=0.0), retry, 0.5) == delay


def test_jitter_uses_its_whole_share_to_both_sides() -> None:
    policy = RetryPolicy(initial_delay=MINUTE, jitter=0.2)
    assert backoff(policy, 1, 0.0) == 48 * SECOND
    assert backoff(policy, 1, 0.5) == 60 * SECOND
    assert 71 * SECOND < backoff(policy, 1, 0.999) < 72 * SECOND


def test_the_cap_holds_after_the_spread_too() -> None:
    policy = RetryPolicy(initial_delay=DAY, max_delay=MINUTE, jitter=1.0)
    assert backoff(policy, 1, 0.999) == MINUTE
    assert backoff(policy, 1, 0.25) == MINUTE // 2


def test_the_first_three_returns_are_free_and_the_others_wait_one_second_to_five_minutes() -> None:
    delays = [return_delay(nth) // SECOND for nth in range(1, MAX_RETURNS)]
    assert delays == [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256] + [300] * 7
    assert FREE_RETURNS == 3


@given(st.integers(0, 10_000))
def test_returns_never_wait_less_than_before_nor_over_five_minutes(returns: int) -> None:
    assert return_delay(returns) <= return_delay(returns + 1) <= 5 * MINUTE
