"""A connection and the calls that wait for it: those that wait together share one transaction.

This is group commit: whatever has gathered while the last transaction was being written goes into the next one, so
that one fsync pays for all of it; no timer, no added waiting. Nobody is told anything before the commit.

Statements run in the event loop, and only the commit in a thread. SQLite gives up the interpreter lock at each row it
returns; in a thread of its own the writer had to win it back from the event loop hundreds of times for a batch, which
took longer than the work (measured: 16 % fewer lives a second). Whatever may take long is done in the thread: an fsync,
a wait for another program, and calls that say so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from traceback import clear_frames
from typing import Any, Final, TypeVar

import apsw

from jobwire_server.store.base import StoreFull, StoreUnavailable
from jobwire_server.store.sqlite.transaction import Transaction
from jobwire_server.telemetry.metrics import Timed, unmeasured

MAX_WEIGHT: Final = 1_000
"""Items (jobs, moves, renewals) in one transaction, so that neither the first of them waits for ever, nor the loop."""

BUSY: Final = 5_000
"""Milliseconds to wait for another program to let go of the file."""

_JOINED_WITHIN: Final = 6
"""Passes of the event loop in which a stream that was told of a job has asked for it: it takes four."""

_BROKEN: Final = (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError)
"""After these nothing the connection says can be trusted; only a fresh start can tell what is on the disk."""

_UNAVAILABLE: Final = (apsw.BusyError, apsw.LockedError, apsw.CantOpenError, apsw.NoMemError, apsw.ProtocolError)
"""These may pass."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Call:
    run: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    weight: int
    needs_room: bool
    is_long: bool

    def answer(self, value: Any) -> None:
        if not self.future.done():  # its caller may have gone
            self.future.set_result(value)

    def refuse(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # marked as seen: a caller that left must not cost a log line


class Lane:
    """Runs calls in order, in transactions that begin with `begin`. `connect` runs in the lane's thread.

    `before_commit` answers whether it told somebody who may have a call for the same transaction: it waits a moment.
    """

    def __init__(
        self,
        name: str,
        *,
        connect: Callable[[], apsw.Connection],
        begin: str,
        start_transaction: Callable[[apsw.Connection], Transaction],
        has_room: Callable[[], bool] = lambda: True,
        before_commit: Callable[[Transaction], bool] = lambda transaction: False,
        on_commit: Callable[[Transaction], None] = lambda transaction: None,
        on_failure: Callable[[str], None],
        timed: Timed = unmeasured,
    ) -> None:
        self._name = name
        self._connect = connect
        self._begin = begin
        self._start_transaction = start_transaction
        self._has_room = has_room
        self._before_commit = before_commit
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._timed = timed
        self._calls: deque[_Call] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._broken: str | None = None
        self._connection: apsw.Connection
        self._thread: _Thread

    async def open(self) -> None:
        self._thread = _Thread(self._name)
        try:
            self._connection = await self._thread.do(self._connect)
        except BaseException:
            self._thread.end()
            raise

    async def close(self) -> None:
        """Runs what was called before, then lets go of the connection."""
        if self._draining is not None:
            await asyncio.wait([self._draining])
        try:
            await self._thread.do(self._connection.close)
        except apsw.Error:
            _log.exception("%s did not close cleanly", self._name)
        self._thread.end()

    async def call(
        self, run: Callable[[Transaction], T], *, weight: int = 1, needs_room: bool = False, is_long: bool = False
    ) -> T:
        """What `run` answers, once it is committed. A caller that goes away meanwhile does not stop it.

        `is_long`: it may look at more than it answers, so that it runs in the thread, with all that shares its
        transaction.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(run, future, weight, needs_room, is_long))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        try:
            while self._calls:
                calls = self._next()
                try:
                    await self._run(calls)
                except Exception as error:  # noqa: BLE001  # a bug must not leave callers waiting for ever
                    _log.exception("%s failed", self._name)
                    self._break(error)
                    for call in calls:
                        call.refuse(StoreUnavailable(self._broken))
        finally:
            self._draining = None

    def _next(self) -> list[_Call]:
        """The calls for the next transaction."""
        calls: list[_Call] = []
        weight = 0
        while self._calls and weight < MAX_WEIGHT:
            calls.append(self._calls.popleft())
            weight += calls[-1].weight
        return calls

    async def _run(self, calls: list[_Call]) -> None:
        if any(call.needs_room for call in calls) and not self._has_room():
            for call in calls:
                if call.needs_room:
                    call.refuse(StoreFull("too little disk is left"))
            calls = [call for call in calls if not call.needs_room]
        if not await self._try(calls):
            # One of them is bad. Alone, it fails alone.
            for call in calls:
                await self._try([call])

    async def _try(self, calls: list[_Call]) -> bool:
        """Runs the calls in one transaction; False, and nothing happened, when that failed and each should be tried
        alone."""
        if not calls:
            return True
        if self._broken is not None:
            for call in calls:
                call.refuse(StoreUnavailable(self._broken))
            return True
        try:
            values, transaction = await self._committed(calls)
        except Exception as error:  # noqa: BLE001  # it goes to the caller it belongs to
            # The variables of its frames hold statements that are half read, and those hold on to what they see: the
            # connection would read the state of this moment until the garbage collector comes by.
            clear_frames(error.__traceback__)
            if isinstance(error, _BROKEN):
                self._break(error)
            elif len(calls) > 1 and not isinstance(error, _UNAVAILABLE):
                return False
            for call in calls:
                call.refuse(_as_promised(error))
            return True
        for call, value in zip(calls, values, strict=True):
            call.answer(value)
        self._on_commit(transaction)
        return True

    async def _committed(self, calls: list[_Call]) -> tuple[list[Any], Transaction]:
        if any(call.is_long for call in calls):
            return await self._thread.do(self._transact, calls)
        try:
            self._connection.execute(self._begin)
        except apsw.BusyError:  # another program writes to the file
            await self._thread.do(self._begin_patiently)
        try:
            values, transaction = self._execute(calls)
            if self._before_commit(transaction):
                values += await self._joining(calls, transaction)
            transaction.flush()
            began = time.perf_counter()
            await self._thread.do(self._connection.execute, "COMMIT")
            self._timed("commit", time.perf_counter() - began)
        except BaseException:
            self._roll_back()
            raise
        return values, transaction

    def _transact(self, calls: Sequence[_Call]) -> tuple[list[Any], Transaction]:
        """In the thread: all of a transaction."""
        self._begin_patiently()
        try:
            values, transaction = self._execute(calls)
            transaction.flush()
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return values, transaction

    def _execute(self, calls: Sequence[_Call]) -> tuple[list[Any], Transaction]:
        transaction = self._start_transaction(self._connection)
        return [call.run(transaction) for call in calls], transaction

    async def _joining(self, calls: list[_Call], transaction: Transaction) -> list[Any]:
        """Runs what comes within a few passes of the loop in this transaction too, and adds it to the calls."""
        for _ in range(_JOINED_WITHIN):
            await asyncio.sleep(0)
        values = []
        weight = sum(call.weight for call in calls)
        while self._calls and weight < MAX_WEIGHT and not (self._calls[0].is_long or self._calls[0].needs_room):
            call = self._calls.popleft()
            calls.append(call)
            weight += call.weight
            values.append(call.run(transaction))
        return values

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # a full disk rolls back by itself
            self._connection.execute("ROLLBACK")

    def _begin_patiently(self) -> None:
        """In the thread."""
        self._connection.set_busy_timeout(BUSY)
        try:
            self._connection.execute(self._begin)
        finally:
            self._connection.set_busy_timeout(0)

    def _break(self, error: BaseException) -> None:
        """From now on every call is refused: what is on the disk is not known any more."""
        if self._broken is None:
            self._broken = f"{self._name}: {type(error).__name__}: {error}"
            _log.critical("the store has failed for good: %s", self._broken)
            self._on_failure(self._broken)


class _Thread:
    """Does one thing at a time, beside the event loop. A daemon, so that a server that dies of something else does not
    hang here: the file can take it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._main, name=name, daemon=True).start()

    async def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """What it answers. It runs to its end, whoever waits."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._work.put((function, arguments, done))
        return await asyncio.shield(done)

    def end(self) -> None:
        """After what it has been given."""
        self._work.put(None)

    def _main(self) -> None:
        while (work := self._work.get()) is not None:
            function, arguments, done = work
            value: Any = None
            failed: BaseException | None = None
            try:
                value = function(*arguments)
            except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to whoever waits
                failed = error
            try:
                self._loop.call_soon_threadsafe(_settle, done, value, failed)
            except RuntimeError:  # the loop has been closed: nobody waits any more
                _log.warning("%s: the event loop ended before the store was closed", self._name)
            del work, function, arguments, done, value, failed  # until the next work comes they would hold on to much


def _settle(done: asyncio.Future[T], value: T, failed: BaseException | None) -> None:
    if failed is None:
        done.set_result(value)
    else:
        done.set_exception(failed)


def _as_promised(error: Exception) -> Exception:
    """The engine's refusal in the words of store.base; anything else is a bug, and stays what it is."""
    if isinstance(error, apsw.FullError):
        return StoreFull("the disk is full")
    if isinstance(error, (*_BROKEN, *_UNAVAILABLE)):
        return StoreUnavailable(f"{type(error).__name__}: {error}")
    return error
