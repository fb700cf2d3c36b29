"""Backups of the whole store for those who call: made into a file that nobody else sees, then read piece by piece.

The file stands between the store and the caller: however slowly that one reads, the store was held up only as long as
its copying took.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final, Protocol

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.limits import MIB
from jobwire_server.service.admission import RECONNECT_AFTER, Streams, draining
from jobwire_server.store.base import CannotOpen, StoreUnavailable
from jobwire_server.store.copying import Copied
from jobwire_server.store.examination import Progress

PIECE: Final = MIB
"""Bytes that are read at once."""

log = logging.getLogger(__name__)


class Make(Protocol):
    """Makes an empty file a backup of the store, telling `progress`, which may raise to end it."""

    async def __call__(self, file: Path, progress: Progress, /) -> Copied:
        """Raises CannotOpen, StoreUnavailable, StoreFull."""


class BackupService:
    """One at a time: each takes a second store's room on the disk, and much of a core."""

    def __init__(self, make: Make, *, streams: Streams, folder: Path | None = None) -> None:
        """`folder`: where there is room for the file; None = where the system has temporary ones."""
        self._make = make
        self._streams = streams
        self._folder = folder
        self._draining = False
        self._open: Backup | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def open(self) -> Backup:
        """Begins to make one. Close it."""
        while self._open is not None:
            if not self._open.is_closed:
                raise JobwireError(
                    Reason.TOO_MANY_STREAMS,
                    "this server makes one backup at a time",
                    retry_after=RECONNECT_AFTER,
                    metadata={"limit": "1"},
                )
            await self._idle.wait()
        if self._draining:
            raise draining()
        principal = self._streams.enter()
        self._idle.clear()
        self._open = Backup(self._make, self._folder, lambda: self._ended(principal))
        return self._open

    async def drain(self) -> None:
        """Refuses new ones, ends the one that is open, and returns when nothing of it is left."""
        self._draining = True
        if self._open is not None:
            self._open.stop()
        await self._idle.wait()

    def _ended(self, principal: str) -> None:
        self._streams.leave(principal)
        self._open = None
        self._idle.set()


@dataclass(frozen=True, slots=True)
class _Made:
    file: BinaryIO
    """It has no name any more: whatever becomes of this process, nothing of it stays."""
    copied: Copied


class _Stopped(Exception):
    """Nobody wants the backup any more."""


class Backup:
    """One that is being made, then read."""

    def __init__(self, make: Make, folder: Path | None, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._stopped = threading.Event()
        self._making = asyncio.create_task(self._made(make, folder))
        self._ending: asyncio.Task[None] | None = None

    @property
    def is_closed(self) -> bool:
        """Nobody reads it any more, but something of it may be left."""
        return self._ending is not None

    async def read(self) -> bytes:
        """The next piece; empty when that was all. SERVER_DRAINING when the server goes away."""
        file = (await self._whole()).file
        return await asyncio.to_thread(file.read, PIECE)

    async def contents(self) -> Copied:
        """What is in it."""
        return (await self._whole()).copied

    def stop(self) -> None:
        """It has no time left."""
        self._stopped.set()

    def close(self) -> None:
        """It goes, as soon as what is being made of it lets go."""
        self._stopped.set()
        self._ending = asyncio.create_task(self._end())

    async def _whole(self) -> _Made:
        try:
            made = await asyncio.shield(self._making)
            self._go_on()
        except _Stopped:
            raise draining() from None
        return made

    async def _made(self, make: Make, folder: Path | None) -> _Made:
        try:
            around = await asyncio.to_thread(TemporaryDirectory, prefix="jobwire-backup-", dir=folder)
            try:
                path = Path(around.name, "backup.db")
                await asyncio.to_thread(path.touch)
                copied = await make(path, self._go_on)
                return _Made(await asyncio.to_thread(path.open, "rb"), copied)
            finally:
                await asyncio.to_thread(around.cleanup)
        except (CannotOpen, OSError, StoreUnavailable) as error:
            log.warning("a backup could not be made: %s", error)
            raise StoreUnavailable(str(error)) from error

    def _go_on(self, _: int = 0) -> None:
        """Raises _Stopped."""
        if self._stopped.is_set():
            raise _Stopped

    async def _end(self) -> None:
        try:
            await asyncio.wait([self._making])
            if not self._making.cancelled() and self._making.exception() is None:
                # Only now the disk gets back what may be gigabytes.
                await asyncio.to_thread(self._making.result().file.close)
        finally:
            self._ended()
