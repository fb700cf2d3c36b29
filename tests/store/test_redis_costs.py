"""What a life costs the engine, counted in commands: a clock would only measure the machine."""

from __future__ import annotations

import pytest
from tests.store.making import claim, new_job, wish
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.store.base import Store

JOBS = 200


class Commands:
    """Counts what scripts have called since it was last asked."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self.since()

    def since(self) -> dict[str, int]:
        with self._keyspace.server.client() as client:
            stats = client.info("commandstats")
            client.config_resetstat()
        ours = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
        return {
            name: calls for name, calls in ours.items() if "|" not in name and name not in ("info", "hello", "eval")
        }


@pytest.fixture
def commands(store: Store, keyspace: Keyspace | None) -> Commands:
    assert keyspace is not None
    return Commands(keyspace)


async def test_a_life_takes_three_writes_and_two_reads_and_the_rest_is_shared(store: Store, commands: Commands) -> None:
    await store.create([new_job(f"warm-{n}") for n in range(2)])  # the scripts are known from now on
    await store.move([policy.complete(j.id, j.token or b"", b"r") for j in (await claim(store, wish(number=2))).jobs])
    commands.since()

    await store.create([new_job(f"job-{n}", id_given=False) for n in range(JOBS)])
    created = commands.since()
    assert created.pop("hset") == JOBS + 1, "each job, and its queue"
    assert sum(created.values()) <= 10, created

    jobs = (await claim(store, wish(number=JOBS))).jobs
    assert len(jobs) == JOBS
    claimed = commands.since()
    assert (claimed.pop("hgetall"), claimed.pop("hset")) == (JOBS, JOBS)
    assert sum(claimed.values()) <= 16, claimed

    moved = await store.move([policy.complete(job.id, job.token or b"", b"result") for job in jobs])
    assert {each.outcome for each in moved} == {Outcome.OK}
    completed = commands.since()
    assert (completed.pop("hgetall"), completed.pop("hset")) == (JOBS, JOBS)
    assert sum(completed.values()) <= 14, completed
