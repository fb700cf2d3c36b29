"""Backups while they are made: one at a time, and nothing stays of one that nobody wants any more."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.limits import Limits
from jobwire_server.service.admission import Streams
from jobwire_server.service.backups import Backup, BackupService
from jobwire_server.store.base import StoreUnavailable
from jobwire_server.store.copying import Copied
from jobwire_server.store.examination import Progress

COPIED = Copied(requests=7)


class Slow:
    """Makes a backup of two halves; a thread waits between them until it may go on."""

    def __init__(self) -> None:
        self.has_half = asyncio.Event()
        self.may_go_on = threading.Event()
        self.fails = False
        self.made = 0
        self._loop = asyncio.get_running_loop()

    async def __call__(self, file: Path, progress: Progress) -> Copied:
        return await asyncio.to_thread(self._make, file, progress)

    def _make(self, file: Path, progress: Progress) -> Copied:
        file.write_bytes(b"half")
        self._loop.call_soon_threadsafe(self.has_half.set)
        assert self.may_go_on.wait(20)
        if self.fails:
            raise StoreUnavailable("secrets of the engine")
        progress(1)
        file.write_bytes(b"whole")
        self.made += 1
        return COPIED


@pytest.fixture
async def make() -> Slow:
    return Slow()


@pytest.fixture
async def streams() -> Streams:
    return Streams(Limits())


@pytest.fixture
async def service(make: Slow, streams: Streams, tmp_path: Path) -> BackupService:
    return BackupService(make, streams=streams, folder=tmp_path)


def made_in(folder: Path) -> list[Path]:
    return [*folder.rglob("*")]


async def reason(backup: Backup) -> Reason:
    with pytest.raises(JobwireError) as caught:
        await backup.read()
    return caught.value.reason


async def test_it_is_read_when_it_is_whole_and_then_has_no_name(
    service: BackupService, make: Slow, tmp_path: Path
) -> None:
    backup = await service.open()
    reading = asyncio.create_task(backup.read())
    await make.has_half.wait()
    assert len(made_in(tmp_path)) == 2  # a folder, and in it the file
    make.may_go_on.set()
    assert await reading == b"whole"
    assert made_in(tmp_path) == []
    assert await backup.read() == b""
    assert (await backup.contents()).requests == 7
    backup.close()
    await service.drain()


async def test_a_second_one_is_refused_while_somebody_reads_the_first(service: BackupService, make: Slow) -> None:
    make.may_go_on.set()
    backup = await service.open()
    await backup.contents()
    with pytest.raises(JobwireError) as caught:
        await service.open()
    assert caught.value.reason is Reason.TOO_MANY_STREAMS
    backup.close()
    await service.drain()


async def test_one_that_is_closed_while_it_is_made_goes_before_another_begins(
    service: BackupService, make: Slow, streams: Streams, tmp_path: Path
) -> None:
    backup = await service.open()
    await make.has_half.wait()
    first = made_in(tmp_path)
    backup.close()
    opening = asyncio.create_task(service.open())
    await asyncio.sleep(0)
    assert not opening.done()
    make.may_go_on.set()
    another = await opening
    assert not any(path.exists() for path in first)
    assert streams.count == 1
    assert await another.read() == b"whole"
    assert make.made == 1  # of the first one only half
    another.close()
    await service.drain()
    assert made_in(tmp_path) == []
    assert streams.count == 0


async def test_drain_ends_one_that_is_made_and_returns_when_nothing_of_it_is_left(
    service: BackupService, make: Slow, tmp_path: Path
) -> None:
    backup = await service.open()
    reading = asyncio.create_task(reason(backup))
    await make.has_half.wait()
    draining = asyncio.create_task(service.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    make.may_go_on.set()
    assert await reading is Reason.SERVER_DRAINING
    assert not draining.done()
    backup.close()
    await draining
    assert made_in(tmp_path) == []
    with pytest.raises(JobwireError) as caught:
        await service.open()
    assert caught.value.reason is Reason.SERVER_DRAINING


async def test_drain_ends_one_that_is_read(service: BackupService, make: Slow) -> None:
    make.may_go_on.set()
    backup = await service.open()
    await backup.contents()
    draining = asyncio.create_task(service.drain())
    await asyncio.sleep(0)
    assert await reason(backup) is Reason.SERVER_DRAINING
    backup.close()
    await draining


async def test_the_log_alone_is_told_why_one_could_not_be_made(
    service: BackupService, make: Slow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make.fails = True
    make.may_go_on.set()
    backup = await service.open()
    with pytest.raises(StoreUnavailable):
        await backup.read()
    backup.close()
    await service.drain()
    assert "a backup could not be made: secrets of the engine" in caplog.text
    assert made_in(tmp_path) == []


async def test_where_there_is_no_folder_for_it_none_is_made(
    make: Slow, streams: Streams, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = BackupService(make, streams=streams, folder=tmp_path / "none")
    backup = await service.open()
    with pytest.raises(StoreUnavailable):
        await backup.read()
    backup.close()
    await service.drain()
    assert "a backup could not be made: " in caplog.text
    assert streams.count == 0
