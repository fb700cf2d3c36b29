"""What a life costs the engine, counted in commands: a clock would only measure the machine."""

from __future__ import annotations

import pytest
from tests.store.making import claim, new_job, wish
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.store.base import Renewal, Store

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


async def test_however_many_jobs_a_call_is_about_its_commands_are_few(store: Store, commands: Commands) -> None:
    await store.create([new_job(f"warm-{n}") for n in range(2)])  # the scripts are known from now on
    await store.move([policy.complete(j.id, j.token or b"", b"r") for j in (await claim(store, wish(number=2))).jobs])
    commands.since()

    await store.create([new_job(f"job-{n}", id_given=False, submission=b"x") for n in range(JOBS)])
    assert sum((created := commands.since()).values()) <= 14, created

    jobs = (await claim(store, wish(number=JOBS))).jobs
    assert len(jobs) == JOBS
    assert sum((claimed := commands.since()).values()) <= 18, claimed

    renewed = await store.renew([Renewal(job_id=job.id, token=job.token or b"") for job in jobs])
    assert {each.outcome for each in renewed} == {Outcome.OK}
    assert sum((acknowledged := commands.since()).values()) <= 10, acknowledged

    moved = await store.move([policy.complete(job.id, job.token or b"", b"result") for job in jobs])
    assert {each.outcome for each in moved} == {Outcome.OK}
    assert sum((completed := commands.since()).values()) <= 17, completed
