"""The scripts as files, and as the engine knows them."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest
from tests.store.making import claim, get, new_job, wish
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import CreateOutcome, Renewal, Store
from jobwire_server.store.redis import scripts

FOLDER = Path(scripts.__file__).parent / "lua"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_flags_one_sentence_guard_returns_and_keeps(name: str) -> None:
    flags, *rest = (FOLDER / f"{name}.lua").read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"#!lua( flags=(allow-oom|no-writes))?", flags)
    opening = list(takewhile(lambda line: not line.startswith("--!"), rest))
    assert all(line.startswith("-- ") for line in opening)
    assert opening[0].endswith("."), "one sentence"
    words = [line.split(":")[0] for line in opening if re.match(r"-- (Guard|Returns|Keeps):", line)]
    assert words == ["-- Guard", "-- Returns", "-- Keeps"]


def test_only_a_create_is_refused_by_a_full_engine() -> None:
    assert [name for name in SCRIPTS if (FOLDER / f"{name}.lua").read_text().startswith("#!lua\n")] == ["create"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_put_together_whole(name: str) -> None:
    source = scripts.script(name).source
    assert "--!include" not in source
    assert source.startswith("#!lua")
    spelled = re.findall(r"""['"]:[a-z]+:?['"]""", re.sub(r"(?m)^local [A-Z]+ = '.*'$", "", source))
    assert set(spelled) <= {"':'"}, "keys.py alone spells keys"


async def test_every_verb_works_after_the_engine_has_forgotten_the_scripts(store: Store, keyspace: Keyspace) -> None:
    def forget() -> None:
        with keyspace.server.client() as client:
            client.script_flush()

    forget()
    (created,) = await store.create([new_job("j")])
    assert created.outcome is CreateOutcome.CREATED
    forget()
    (job,) = (await claim(store, wish())).jobs
    assert job.token
    forget()
    assert (await store.renew([Renewal(job_id="j", token=job.token)]))[0].outcome is Outcome.OK
    forget()
    assert (await store.move([policy.complete("j", job.token, None)]))[0].outcome is Outcome.OK
    forget()
    assert (await get(store, "j")).state is JobState.COMPLETED
    forget()
    assert await store.beat(WorkerInfo(id="w", session=3))
    forget()
    assert len((await store.find(JobFilter(), limit=1)).jobs) == 1
    forget()
    assert (await store.count(JobFilter(user_id="ann"))).by_state == {}
    forget()
    assert (await store.put_queue("default", {})).outcome is Outcome.OK
    forget()
    assert (len((await store.queues()).queues), len((await store.workers()).workers)) == (1, 1)
    forget()
    assert (await store.overdue(limit=1)).jobs == (await store.leased(longer_than=0, limit=1)).jobs == []
    forget()
    assert (await store.promote(limit=1), await store.purge(limit=1)) == (0, 0)
    forget()
    assert await store.delete([Deletion("j", (await get(store, "j")).version)]) == [Outcome.OK]
