"""The scenarios, a file for each figure that is promised; this is the order in which they run."""

from __future__ import annotations

from typing import Final

from benchmarks.scenario import Scenario
from benchmarks.scenarios import (
    backlog,
    coalesced_client,
    copies,
    creates_and_claims,
    idle_streams,
    many_workers,
    memory_of_a_job,
    pick_up,
    single_creates,
    two_servers,
    watched_lives,
    whole_lives,
)

SCENARIOS: Final[tuple[Scenario, ...]] = (
    whole_lives.SCENARIO,
    creates_and_claims.SCENARIO,
    single_creates.SCENARIO,
    coalesced_client.SCENARIO,
    pick_up.SCENARIO,
    many_workers.SCENARIO,
    two_servers.SCENARIO,
    memory_of_a_job.SCENARIO,
    idle_streams.SCENARIO,
    watched_lives.SCENARIO,
    copies.SCENARIO,
    backlog.SCENARIO,
)
