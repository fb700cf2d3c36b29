"""The store in one SQLite file, or in memory: the face that callers await."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakSet

import apsw

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, NewJob
from jobwire_server.domain.move import AnyMove, Deletion
from jobwire_server.domain.queue import QueueChanges
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import (
    SCAN,
    ClaimRequest,
    Claims,
    Counts,
    Created,
    Found,
    Hints,
    Moved,
    QueuePut,
    Queues,
    Renewal,
    Renewed,
    Snapshot,
    StoreFull,
    StoreUnavailable,
    Workers,
)
from jobwire_server.store.changes import Changes
from jobwire_server.store.copying import Copied
from jobwire_server.store.examination import Progress
from jobwire_server.store.info import StoreInfo
from jobwire_server.store.listener import Listener
from jobwire_server.store.sqlite import (
    backup,
    claim,
    create,
    delete,
    find,
    move,
    opening,
    queues,
    renew,
    rows,
    sweep,
    workers,
)
from jobwire_server.store.sqlite.codec import UNREADABLE
from jobwire_server.store.sqlite.lane import Lane
from jobwire_server.store.sqlite.transaction import Transaction
from jobwire_server.telemetry.metrics import Timed, unmeasured

RESERVE: Final = 64 * 1024 * 1024
"""Bytes of disk below which creates are refused, so that what is there already can be worked off."""

OUTAGE_GAP: Final = 3 * SECOND
"""Between two sweeps; a longer one was an outage."""

_SIZE: Final = "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size"

T = TypeVar("T")


def system_clock() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


class SqliteStore:
    """One process, one writer, an fsync before every OK; `path` None keeps all in memory and promises nothing.

    `clock` and `free_disk` (bytes left where the database is) are asked in the loop or in a thread. When more than
    `outage_gap` passes between two calls of `overdue`, or the clock went back, that was an outage; None = never.
    """

    def __init__(
        self,
        path: str | None,
        *,
        clock: Callable[[], int] = system_clock,
        free_disk: Callable[[], int] | None = None,
        outage_gap: int | None = OUTAGE_GAP,
    ) -> None:
        self._path = None if path is None else Path(path).resolve()  # a link and its target share one lock
        self._clock = clock
        self._free_disk = free_disk
        self._outage_gap = outage_gap
        self._lock: opening.FileLock | None = None
        self._writer: Lane | None = None
        self._reader: Lane | None = None
        self._durability = ""
        self._recovered_at = 0
        self._swept = 0
        self._listeners: WeakSet[Listener] = WeakSet()
        self._hear: Callable[[Changes], None] | None = None
        self._closed = False
        self.failed: Final = asyncio.Event()
        """Set when the file can be trusted no more (an I/O error, corruption). Every call is refused from then on;
        whoever owns the process should end it, and a fresh start finds what is really on the disk."""
        self.failure = ""
        """Why, for people; empty until then."""
        self.steps: Final = ["commit"]
        self.timed: Timed = unmeasured
        """Told what each commit took, but for those of long calls. Set it before `open`."""

    # --- opening and closing --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises `opening.CannotOpen`, whose message says what to do."""
        self._closed = False
        if self._path is not None:
            self._lock = opening.FileLock(self._path)
            self._lock.acquire()
        try:
            await self._open_lanes()
        except BaseException:
            await self.close()
            raise

    async def _open_lanes(self) -> None:
        writer = Lane(
            "jobwire-writer",
            connect=self._connect_writer,
            begin="BEGIN IMMEDIATE",  # an upgraded read transaction would fail at once where this one waits
            start_transaction=self._start_transaction,
            has_room=self._has_room,
            before_commit=self._tell_queued,
            on_commit=self._tell,
            on_failure=self._fail,
            timed=self.timed,
        )
        await writer.open()
        self._writer = self._reader = writer
        if self._path is None:
            return  # a second connection would see a second, empty memory
        path = self._path
        reader = Lane(
            "jobwire-reader",
            connect=lambda: opening.open_reader(path),
            begin="BEGIN",
            start_transaction=self._start_transaction,
            on_failure=self._fail,
        )
        await reader.open()
        self._reader = reader

    async def close(self) -> None:
        self._closed = True
        writer, reader = self._writer, self._reader
        self._writer = self._reader = None
        if reader is not None and reader is not writer:
            await reader.close()
        if writer is not None:
            await writer.close()
        if self._lock is not None:
            self._lock.release()
        for listener in self._listeners:
            listener.close()

    def _connect_writer(self) -> apsw.Connection:
        now = self._clock()
        opened = opening.open_memory(now=now) if self._path is None else opening.open_file(self._path, now=now)
        self._durability = opened.durability
        # While nobody had the file open, no worker could renew.
        self._recovered_at = 0 if opened.is_new else now
        return opened.connection

    def _start_transaction(self, connection: apsw.Connection) -> Transaction:
        return Transaction(
            connection, now=self._clock(), recovered_at=self._recovered_at, is_watched=self._hear is not None
        )

    def _has_room(self, needed: int = 0) -> bool:
        if self._free_disk is not None:
            return self._free_disk() >= RESERVE + needed
        if self._path is None:
            return True
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize >= RESERVE + needed

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.failed.set()

    # --- the verbs ------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        await self._write(lambda transaction: transaction.execute("SELECT 1").get)

    async def info(self) -> StoreInfo:
        now, pages, page = await self._write(lambda transaction: (transaction.now, *transaction.execute(_SIZE).get))
        return StoreInfo(
            kind="memory" if self._path is None else "sqlite",
            engine=f"SQLite {apsw.sqlite_lib_version()}",
            url="memory://" if self._path is None else f"sqlite:///{self._path}",
            durability=self._durability,
            schema_version=opening.SCHEMA_VERSION,
            now=now,
            recovered_at=self._recovered_at,
            used_bytes=pages * page,
        )

    async def create(self, jobs: Sequence[NewJob], *, brief: bool = False) -> list[Created]:
        return await self._write(
            lambda transaction: create.create(transaction, jobs, brief=brief), weight=len(jobs), needs_room=True
        )

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        def read(transaction: Transaction) -> Snapshot:
            found = rows.read(transaction, job_ids, whole=True)
            return Snapshot(transaction.now, [found[job_id][1] if job_id in found else None for job_id in job_ids])

        return await self._read(read, weight=len(job_ids))

    async def find(self, wanted: JobFilter, *, after: Position | None = None, limit: int) -> Found:
        return await self._read(lambda transaction: find.find(transaction, wanted, after, limit), weight=SCAN)

    async def count(self, wanted: JobFilter, *, after: Position | None = None) -> Counts:
        return await self._read(lambda transaction: find.count(transaction, wanted, after), weight=SCAN)

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        weight = sum(len(request.tokens) for request in requests)
        return await self._write(lambda transaction: claim.claim(transaction, queue, requests), weight=weight)

    async def move(self, moves: Sequence[AnyMove], *, brief: bool = False) -> list[Moved]:
        return await self._write(lambda transaction: move.move(transaction, moves, brief=brief), weight=len(moves))

    async def delete(self, deletions: Sequence[Deletion]) -> list[Outcome]:
        return await self._write(lambda transaction: delete.delete(transaction, deletions), weight=len(deletions))

    async def renew(self, renewals: Sequence[Renewal], *, brief: bool = False) -> list[Renewed]:
        return await self._write(
            lambda transaction: renew.renew(transaction, renewals, brief=brief), weight=len(renewals)
        )

    async def promote(self, *, limit: int) -> int:
        return await self._write(lambda transaction: sweep.promote(transaction, limit), weight=limit, is_long=True)

    async def overdue(self, *, queues: Sequence[str] = (), limit: int) -> Snapshot:
        def read(transaction: Transaction) -> Snapshot:
            self._notice_gap(transaction)
            return sweep.overdue(transaction, queues, limit)

        return await self._write(read, weight=limit, is_long=True)

    async def leased(self, *, queues: Sequence[str] = (), longer_than: int, limit: int) -> Snapshot:
        return await self._write(
            lambda transaction: sweep.leased(transaction, queues, longer_than, limit), weight=limit, is_long=True
        )

    async def purge(self, *, limit: int) -> int:
        return await self._write(lambda transaction: sweep.purge(transaction, limit), weight=limit, is_long=True)

    async def put_queue(
        self, name: str, changes: QueueChanges, *, revision: int | None = None, create: bool = False
    ) -> QueuePut:
        return await self._write(
            lambda transaction: queues.put(transaction, name, changes, revision=revision, create=create)
        )

    async def queues(
        self,
        *,
        names: Sequence[str] = (),
        after: str = "",
        limit: int = 1000,
        lately: bool = False,
        minutes: bool = False,
    ) -> Queues:
        return await self._read(
            lambda transaction: queues.queues(transaction, names, after, limit, lately=lately, minutes=minutes),
            weight=limit,
        )

    async def workers(self, *, ids: Sequence[str] = (), after: str = "", limit: int = 1000, jobs: int = 0) -> Workers:
        return await self._read(lambda transaction: workers.workers(transaction, ids, after, limit, jobs), weight=limit)

    async def beat(self, worker: WorkerInfo) -> Directive | None:
        return await self._write(lambda transaction: renew.beat(transaction, worker))

    async def seen(self, worker_ids: Sequence[str]) -> None:
        await self._write(lambda transaction: workers.seen(transaction, worker_ids), weight=len(worker_ids))

    async def direct(self, worker_id: str, directive: Directive) -> bool:
        return await self._write(lambda transaction: workers.direct(transaction, worker_id, directive))

    def hints(self) -> AsyncIterator[Hints]:
        listener = Listener()
        self._listeners.add(listener)  # weakly: one that nobody iterates any more is gone by itself
        if self._closed:
            listener.close()
        return listener

    async def watch(self, hear: Callable[[Changes], None]) -> None:
        self._hear = hear
        await self.caught_up()  # what had begun before is not told

    async def unwatch(self) -> None:
        self._hear = None

    async def caught_up(self) -> int:
        return await self._write(lambda transaction: transaction.now)

    def _notice_gap(self, transaction: Transaction) -> None:
        """A server that stood still (SIGSTOP, a suspended machine) or whose clock jumped heard no worker meanwhile."""
        gap = transaction.now - self._swept
        if self._outage_gap is not None and self._swept and not 0 <= gap <= self._outage_gap:
            self._recovered_at = transaction.recovered_at = transaction.now
        self._swept = transaction.now

    # --- beside the verbs -----------------------------------------------------------------------------------

    @property
    def folder(self) -> Path | None:
        """Where its file is; None = in memory."""
        return None if self._path is None else self._path.parent

    async def back_up(self, file: Path, progress: Progress) -> Copied:
        """Makes an empty file this store as it is at one moment. Raises StoreFull when a second one of its size would
        leave creates no room."""
        if self._path is not None:
            if not self._has_room((await self.info()).used_bytes):
                raise StoreFull("too little disk is left for a backup")
            return await asyncio.to_thread(backup.back_up, self._path, file, progress)

        def read(transaction: Transaction) -> tuple[bytes, Copied]:
            transaction.flush()
            return backup.image(transaction.connection)

        image, copied = await self._write(read, is_long=True)
        await asyncio.to_thread(file.write_bytes, image)
        return copied

    # --- within ---------------------------------------------------------------------------------------------

    async def _read(self, run: Callable[[Transaction], T], *, weight: int) -> T:
        """In the reader's lane, so that no claim waits for it; only what meets a record that cannot be read goes to the
        writer, which sets that aside."""
        try:
            return await self._open_lane(self._reader).call(run, weight=weight, is_long=True)
        except UNREADABLE:
            return await self._write(run, weight=weight, is_long=True)

    async def _write(
        self, run: Callable[[Transaction], T], *, weight: int = 1, needs_room: bool = False, is_long: bool = False
    ) -> T:
        lane = self._open_lane(self._writer)
        return await lane.call(run, weight=weight, needs_room=needs_room, is_long=is_long)

    def _open_lane(self, lane: Lane | None) -> Lane:
        if lane is None:
            raise StoreUnavailable("the store is not open")
        if self.failure:
            raise StoreUnavailable(self.failure)
        return lane

    def _tell_queued(self, transaction: Transaction) -> bool:
        """Wakes those who wait for jobs before these are committed: who claims at once does so in the same transaction,
        and one fsync pays for both. Whether anybody was told."""
        hints = transaction.take_queued()
        return hints is not None and self._ring(hints)

    def _ring(self, hints: Hints) -> bool:
        listeners = list(self._listeners)
        for listener in listeners:
            listener.ring(hints)
        return bool(listeners)

    def _tell(self, transaction: Transaction) -> None:
        hints = transaction.hints()
        if hints is not None:
            self._ring(hints)
        changes = transaction.changes()
        if changes is not None and self._hear is not None:
            self._hear(changes)
