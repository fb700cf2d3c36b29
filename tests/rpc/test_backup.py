"""The Backup RPC: the whole store as a file, from a server at work on it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import grpc
import pytest
from grpc import StatusCode
from tests.rpc.calls import FOREVER, claim_one, complete, create, create_many, refusal
from tests.rpc.conftest import Wire
from tests.store import invariants

from jobwire.v1 import admin_service_pb2 as api
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.job_pb2 import JOB_STATE_IN_PROGRESS, Job, Payload
from jobwire.v1.job_service_pb2 import CreateJobRequest
from jobwire_server.app import App, open_store
from jobwire_server.config import Config
from jobwire_server.domain.limits import KIB
from jobwire_server.service.backups import PIECE, Backup
from jobwire_server.store.sqlite.store import RESERVE

HEAVY: Final = 200 * KIB
MANY: Final = 60
"""Heavy jobs: a file of a dozen pieces."""
NARROW: Final = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * KIB))
"""A connection that takes no more than that of what nobody reads, and does not grow with the traffic."""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the server makes its backups, whatever its store is; no other file of theirs is there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
async def narrow(wire: Wire) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(wire.address, options=NARROW) as channel:
        yield AdminServiceStub(channel)


async def fetched(stream: Any, file: Path) -> api.BackupContents:
    """What its last message says, of the file as it came."""
    contents: api.BackupContents | None = None
    with file.open("wb") as into:
        async for part in stream:
            assert contents is None, "it is the last one"
            if part.HasField("contents"):
                contents = part.contents
            else:
                assert 0 < len(part.data) <= PIECE
                into.write(part.data)
        assert contents is not None
        assert contents.size_bytes == into.tell()
    return contents


async def create_heavy(wire: Wire) -> None:
    for i in range(MANY):
        await create(wire, f"heavy-{i}", payload=Payload(data=os.urandom(HEAVY)))


def left(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.name.startswith("jobwire-backup-")]


async def test_a_backup_of_a_server_at_work_is_sound_and_has_all_that_was_there_before(
    wire: Wire, tmp_path: Path, folder: Path
) -> None:
    await create_many(wire, *(Job(id=f"before{n}", queue=("default", "other")[n % 2]) for n in range(2000)))
    held = await claim_one(wire)
    fetching = asyncio.create_task(fetched(wire.admin.Backup(api.BackupRequest()), tmp_path / "backup"))
    lives = 0
    while not fetching.done() or lives < 3:
        await create(wire, f"meanwhile{lives}")
        await wire.jobs.UpdateJob(complete(await claim_one(wire, worker="busy")))
        lives += 1
    contents = await fetching
    url = f"sqlite:///{tmp_path}/backup"
    assert invariants.broken_at(url) == []
    copy = open_store(url)
    await copy.open()
    jobs = (await copy.get([f"before{n}" for n in range(2000)])).jobs
    assert None not in jobs
    by_id = {job.id: job for job in jobs if job is not None}
    assert by_id[held.job.id].token is not None
    queues = await copy.queues()
    counted = sum(sum(queue.counts.values()) for queue in queues.queues)
    await copy.close()
    counts = {count.state: count.count for count in contents.counts}
    assert sum(counts.values()) == counted >= 2000
    assert counts[JOB_STATE_IN_PROGRESS] >= 1
    assert contents.queue_count == len(queues.queues)
    assert (contents.worker_count >= 1, contents.unreadable_count) == (True, 0)
    assert left(folder) == []


async def test_what_is_remembered_of_requests_is_counted(wire: Wire, tmp_path: Path, folder: Path) -> None:
    await create(wire, "a")
    first = await fetched(wire.admin.Backup(api.BackupRequest()), tmp_path / "first")
    await wire.jobs.CreateJob(CreateJobRequest(job=Job(id="b"), request_id="r"))
    second = await fetched(wire.admin.Backup(api.BackupRequest()), tmp_path / "second")
    assert (first.request_id_count, second.request_id_count) == (0, 1)


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_who_does_not_read_costs_a_piece_or_two_and_holds_up_nobody(
    wire: Wire, narrow: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_heavy(wire)
    read = 0
    has_read = asyncio.Event()

    async def counted(backup: Backup, reading: Any = Backup.read) -> bytes:
        nonlocal read
        piece: bytes = await reading(backup)
        read += 1
        has_read.set()
        return piece

    monkeypatch.setattr(Backup, "read", counted)
    deaf = narrow.Backup(api.BackupRequest())
    async with asyncio.timeout(FOREVER):
        await has_read.wait()
        for i in range(MANY):
            await create(wire, f"meanwhile-{i}")
        assert await refusal(anext(aiter(wire.admin.Backup(api.BackupRequest())))) == (
            StatusCode.RESOURCE_EXHAUSTED,
            "TOO_MANY_STREAMS",
        )
        assert read <= 3
        assert left(folder) == []  # the file that is being read has no name
        deaf.cancel()
        await wire.app._backups._idle.wait()  # the server has heard of it
        assert [part async for part in wire.admin.Backup(api.BackupRequest())][-1].HasField("contents")
    assert left(folder) == []


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_a_draining_server_ends_a_backup_and_leaves_nothing_of_it(store_url: str, folder: Path) -> None:
    app = App(Config(store=store_url, listen="127.0.0.1:0", http="off", drain_timeout=FOREVER))
    address = await app.start()
    async with grpc.aio.insecure_channel(address, options=NARROW) as channel, asyncio.timeout(FOREVER):
        await create_heavy(Wire(app, address, channel))
        stub: Any = AdminServiceStub(channel)
        parts = aiter(stub.Backup(api.BackupRequest()))
        await anext(parts)
        stopping = asyncio.create_task(app.stop())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [part async for part in parts]
        await stopping
    assert caught.value.code() is StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata() or ())["jobwire-reason"] == "SERVER_DRAINING"
    assert left(folder) == []


@pytest.mark.parametrize("engine", ["sqlite"])
async def test_a_server_that_gives_no_time_leaves_nothing_of_a_backup_either(
    store_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(Config(store=store_url, listen="127.0.0.1:0", http="off", drain_timeout=0))
    has_half = asyncio.Event()
    left_at_the_end: list[str] = ["not yet there"]

    async def make(file: Path, progress: Any) -> Any:
        has_half.set()
        try:
            while True:
                progress(1)
                await asyncio.sleep(0)
        finally:
            for _ in range(1000):  # passes of the loop: it does not end at once
                await asyncio.sleep(0)

    async def close(close: Any = app._store.close) -> None:
        left_at_the_end[:] = left(folder)
        await close()

    monkeypatch.setattr(app._backups, "_make", make)
    monkeypatch.setattr(app._store, "close", close)
    async with grpc.aio.insecure_channel(await app.start()) as channel, asyncio.timeout(FOREVER):
        stub: Any = AdminServiceStub(channel)
        fetching = asyncio.create_task(refusal(anext(aiter(stub.Backup(api.BackupRequest())))))
        await has_half.wait()
        assert len(left(folder)) == 1
        await app.stop()
        assert (await fetching)[0] in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    assert left_at_the_end == []


@pytest.mark.parametrize("engine", ["sqlite"])
async def test_a_backup_leaves_creates_their_reserve_of_disk(
    wire: Wire, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(wire, "a")
    used = (await wire.app.store.info()).used_bytes
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=RESERVE + used - 1, f_frsize=1))
    assert await refusal(anext(aiter(wire.admin.Backup(api.BackupRequest())))) == (
        StatusCode.RESOURCE_EXHAUSTED,
        "STORE_FULL",
    )
    await create(wire, "b")
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=2 * (RESERVE + used), f_frsize=1))
    parts = [part async for part in wire.admin.Backup(api.BackupRequest())]
    assert parts[-1].contents.counts[0].count == 2
    assert left(folder) == []
