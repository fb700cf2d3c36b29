"""Settings of queues that two people change at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import NewJob
from jobwire_server.service.queues import QueueService
from jobwire_server.store.base import Queues
from jobwire_server.store.sqlite.store import SqliteStore


class Overtaken(SqliteStore):
    """A store in which `meanwhile` happens once after queues were read."""

    def __init__(self) -> None:
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []
        super().__init__(None)

    async def queues(
        self,
        *,
        names: Sequence[str] = (),
        after: str = "",
        limit: int = 1000,
        lately: bool = False,
        minutes: bool = False,
    ) -> Queues:
        found = await super().queues(names=names, after=after, limit=limit, lately=lately, minutes=minutes)
        if self.meanwhile:
            await self.meanwhile.pop(0)()
        return found


@pytest.fixture
async def store() -> AsyncIterator[Overtaken]:
    store = Overtaken()
    await store.open()
    yield store
    await store.close()


async def test_a_change_that_overtakes_one_with_an_etag_refuses_it(store: Overtaken) -> None:
    await store.create([NewJob(id="a")])
    queues = QueueService(store)
    etag = (await queues.get("default"))[0].settings.etag
    store.meanwhile = [lambda: store.put_queue("default", {"paused": True})]
    with pytest.raises(JobwireError) as refused:
        await queues.update("default", {"max_in_flight": 3}, etag=etag, allow_missing=False)
    settings = (await queues.get("default"))[0].settings
    assert (settings.paused, settings.max_in_flight) == (True, None)
    assert refused.value.reason is Reason.ETAG_MISMATCH
    assert refused.value.metadata == {"queue": "default", "etag": settings.etag}


async def test_without_an_etag_both_changes_hold(store: Overtaken) -> None:
    await store.create([NewJob(id="a")])
    queues = QueueService(store)
    await queues.update("default", {"paused": True}, etag=None, allow_missing=False)
    record, _ = await queues.update("default", {"max_in_flight": 3}, etag=None, allow_missing=False)
    assert (record.settings.paused, record.settings.max_in_flight) == (True, 3)
