"""What a worker is up to, as the contract derives it."""

from __future__ import annotations

import pytest

from jobwire_server.domain.job import MINUTE, SECOND
from jobwire_server.domain.worker import Directive, WorkerState, worker_state

NOW = 1_700_000_000_000_000
TOLD_TO_STOP = [Directive.QUIET, Directive.TERMINATE]


@pytest.mark.parametrize("directive", TOLD_TO_STOP)
@pytest.mark.parametrize("held", [0, 3])
def test_a_worker_that_was_told_to_claim_no_more_is_quiet_whatever_it_holds(directive: Directive, held: int) -> None:
    assert worker_state(last_heard=NOW, held=held, directive=directive, now=NOW) is WorkerState.QUIET


@pytest.mark.parametrize(("held", "state"), [(0, WorkerState.IDLE), (1, WorkerState.BUSY), (3, WorkerState.BUSY)])
def test_a_worker_is_busy_as_long_as_it_holds_something(held: int, state: WorkerState) -> None:
    assert worker_state(last_heard=NOW - SECOND, held=held, directive=Directive.NONE, now=NOW) is state


@pytest.mark.parametrize("directive", Directive)
@pytest.mark.parametrize("held", [0, 3])
def test_a_worker_that_was_not_heard_of_for_a_minute_is_lost_before_all_else(directive: Directive, held: int) -> None:
    heard = NOW - MINUTE
    assert worker_state(last_heard=heard, held=held, directive=directive, now=NOW) is WorkerState.LOST
    assert worker_state(last_heard=heard + 1, held=held, directive=directive, now=NOW) is not WorkerState.LOST


def test_a_sign_of_life_from_a_clock_that_went_back_is_one() -> None:
    assert worker_state(last_heard=NOW + 1, held=0, directive=Directive.NONE, now=NOW) is WorkerState.IDLE
