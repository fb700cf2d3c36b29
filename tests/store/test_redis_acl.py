"""The rights that we ship for the engine: enough for everything, for nothing else, and missed at once.

Every store of the suite is opened by the user of this file, for any prefix; see `valkey_process`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from tests.store.making import claim, new_job
from tests.valkey_process import RIGHTS, USER, Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.redis import scripts
from jobwire_server.store.redis.store import RedisStore

BESIDE_SCRIPTS: Final = {
    "to call them": "eval evalsha",
    "a server": "ping select hget info config|get client|setname subscribe",
    "fsck": "scan sscan zscan exists hmget hgetall hvals sismember zcard multi exec",
    "migrate": "strlen",
    "Sentinel, Cluster, replicas": "role wait cluster|slots",
}
"""Who runs what, beside what the scripts run."""


def shipped() -> list[str]:
    """The words of the one user that may do anything."""
    nobody, line = RIGHTS.read_text().splitlines()
    assert nobody == "user default off ~* &* +@all"  # why it has rights: tests/test_compose.py
    user, name, *words = line.split(" ")
    assert (user, name) == ("user", USER)
    return words


@pytest.fixture
def user(keyspace: Keyspace) -> Iterator[str]:
    """Of the engine, with the rights as they are in the file."""
    name = f"shipped-{keyspace.prefix}"
    grant(keyspace, name, *shipped(), ">secret")
    yield name
    with keyspace.server.client() as client:
        client.acl_deluser(name)


def grant(keyspace: Keyspace, user: str, *words: str) -> None:
    with keyspace.server.client() as client:
        client.execute_command("ACL", "SETUSER", user, *words)


def url(keyspace: Keyspace, user: str, prefix: str = "jw") -> str:
    return f"{keyspace.server.url_of(f'{user}:secret')}?prefix={prefix}"


async def opens(url: str) -> None:
    store = RedisStore(url)
    await store.open()
    await store.close()


def test_the_file_grants_what_is_used_and_no_more() -> None:
    keys, channels, *granted = (word for word in shipped() if word != "on")
    assert (keys, channels) == ("~{jw:0}:*", "&{jw:0}:*")
    used = {*map(str.lower, scripts.commands()), *" ".join(BESIDE_SCRIPTS.values()).split()}
    assert sorted(granted) == sorted(f"+{command}" for command in used)


async def test_a_job_lives_with_the_rights_of_the_file_as_it_is(keyspace: Keyspace, user: str) -> None:
    store = RedisStore(url(keyspace, user))
    await store.open()
    await store.create([new_job("j")])
    (job,) = (await claim(store)).jobs
    assert job.token
    assert [each.outcome for each in await store.move([policy.complete("j", job.token, None)])] == [Outcome.OK]
    await store.close()


async def test_another_prefix_is_not_its_user_s(keyspace: Keyspace, user: str) -> None:
    with pytest.raises(CannotOpen, match="permission"):
        await opens(url(keyspace, user, prefix="other"))


async def test_a_right_that_is_missing_is_named_at_the_start(keyspace: Keyspace, user: str) -> None:
    for command in (*scripts.commands(), "EVALSHA", "INFO", "SUBSCRIBE"):
        grant(keyspace, user, f"-{command}")
        with pytest.raises(CannotOpen, match=f"(?i){command}"):
            await opens(url(keyspace, user))
        grant(keyspace, user, f"+{command}")
    await opens(url(keyspace, user))


async def test_a_channel_that_is_missing_is_said_at_the_start(keyspace: Keyspace, user: str) -> None:
    grant(keyspace, user, "resetchannels")
    with pytest.raises(CannotOpen, match="PUBLISH"):
        await opens(url(keyspace, user))
