"""A connection in a thread of its own, fed by a queue: calls that wait together share one transaction.

This is group commit: whatever has gathered while the last transaction was being written goes into the next one, so
that one fsync pays for all of it; no timer, no added waiting. Nobody is told anything before the commit.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from traceback import clear_frames
from typing import Any, Final, TypeVar

import apsw

from jobwire_server.store.base import Hints, StoreFull, StoreUnavailable
from jobwire_server.store.sqlite.transaction import Transaction

MAX_WEIGHT: Final = 2_000
"""Items (jobs, moves, renewals) in one transaction, so that the first of them does not wait for ever."""

_BROKEN: Final = (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError)
"""After these nothing the connection says can be trusted; only a fresh start can tell what is on the disk."""

_UNAVAILABLE: Final = (apsw.BusyError, apsw.LockedError, apsw.CantOpenError, apsw.NoMemError, apsw.ProtocolError)
"""These may pass."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Call:
    run: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    weight: int
    needs_room: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Lane:
    """Runs calls in order, in transactions that begin with `begin`.

    `connect`, `start_transaction` and `has_room` run in the thread; `on_hints` and `on_failure` run in the event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        connect: Callable[[], apsw.Connection],
        begin: str,
        start_transaction: Callable[[apsw.Connection], Transaction],
        has_room: Callable[[], bool] = lambda: True,
        on_hints: Callable[[Hints], None] = lambda hints: None,
        on_failure: Callable[[str], None],
    ) -> None:
        self._name = name
        self._connect = connect
        self._begin = begin
        self._start_transaction = start_transaction
        self._has_room = has_room
        self._on_hints = on_hints
        self._on_failure = on_failure
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._broken: str | None = None
        self._loop: asyncio.AbstractEventLoop

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A daemon, so that a server that dies of something else does not hang here: the file can take it.
        threading.Thread(target=self._main, args=(opened,), name=self._name, daemon=True).start()
        await opened

    async def close(self) -> None:
        """Runs what was called before, then lets go of the connection."""
        self._calls.put(None)
        await asyncio.shield(self._ended)

    async def call(self, run: Callable[[Transaction], T], *, weight: int = 1, needs_room: bool = False) -> T:
        """What `run` answers, once it is committed. A caller that goes away meanwhile does not stop it."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put(_Call(run, future, weight, needs_room))
        return await future

    # --- in the thread --------------------------------------------------------------------------------------

    def _main(self, opened: asyncio.Future[None]) -> None:
        try:
            self._connection = self._connect()
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to whoever opens the store
            self._tell([_Answer(opened, error=error)], [])
            return
        self._tell([_Answer(opened)], [])
        is_open = True
        while is_open:
            calls, is_open = self._next()
            try:
                self._run(calls)
            except Exception as error:  # noqa: BLE001  # the thread must outlive its bugs, or all callers would wait for ever
                _log.exception("%s failed", self._name)
                self._break(error)
                self._tell([_Answer(call.future, error=StoreUnavailable(self._broken)) for call in calls], [])
        try:
            self._connection.close()
        except apsw.Error:
            _log.exception("%s did not close cleanly", self._name)
        self._tell([_Answer(self._ended)], [])

    def _next(self) -> tuple[list[_Call], bool]:
        """The calls for the next transaction, and whether more may follow; waits for the first one."""
        calls: list[_Call] = []
        weight = 0
        next_call = self._calls.get()
        while next_call is not None:
            calls.append(next_call)
            weight += next_call.weight
            if weight >= MAX_WEIGHT:
                return calls, True
            try:
                next_call = self._calls.get_nowait()
            except Empty:
                return calls, True
        return calls, False

    def _run(self, calls: list[_Call]) -> None:
        answers: list[_Answer] = []
        hints: list[Hints] = []
        if any(call.needs_room for call in calls) and not self._has_room():
            full = StoreFull("too little disk is left")
            answers = [_Answer(call.future, error=full) for call in calls if call.needs_room]
            calls = [call for call in calls if not call.needs_room]
        together = self._try(calls, answers, hints)
        if not together:
            # One of them is bad. Alone, it fails alone.
            for call in calls:
                self._try([call], answers, hints)
        self._tell(answers, hints)

    def _try(self, calls: Sequence[_Call], answers: list[_Answer], hints: list[Hints]) -> bool:
        """Runs the calls in one transaction; False, and nothing happened, when that failed and each should be tried
        alone."""
        if not calls:
            return True
        if self._broken is not None:
            answers += [_Answer(call.future, error=StoreUnavailable(self._broken)) for call in calls]
            return True
        try:
            values, hint = self._commit(calls)
        except Exception as error:  # noqa: BLE001  # it goes to the caller it belongs to
            # The variables of its frames hold statements that are half read, and those hold on to what they see: the
            # connection would read the state of this moment until the garbage collector comes by.
            clear_frames(error.__traceback__)
            if isinstance(error, _BROKEN):
                self._break(error)
            elif len(calls) > 1 and not isinstance(error, _UNAVAILABLE):
                return False
            answers += [_Answer(call.future, error=_as_promised(error)) for call in calls]
            return True
        answers += [_Answer(call.future, value) for call, value in zip(calls, values, strict=True)]
        if hint is not None:
            hints.append(hint)
        return True

    def _commit(self, calls: Sequence[_Call]) -> tuple[list[Any], Hints | None]:
        connection = self._connection
        connection.execute(self._begin)
        try:
            transaction = self._start_transaction(connection)
            values = [call.run(transaction) for call in calls]
            transaction.flush()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk rolls back by itself
                connection.execute("ROLLBACK")
            raise
        return values, transaction.hints()

    def _break(self, error: BaseException) -> None:
        """From now on every call is refused: what is on the disk is not known any more."""
        if self._broken is None:
            self._broken = f"{self._name}: {type(error).__name__}: {error}"
            _log.critical("the store has failed for good: %s", self._broken)
            self._in_loop(self._on_failure, self._broken)

    def _tell(self, answers: Sequence[_Answer], hints: Sequence[Hints]) -> None:
        self._in_loop(self._resolve, answers, hints)

    def _in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            _log.warning("%s: the event loop ended before the store was closed", self._name)

    # --- in the event loop ----------------------------------------------------------------------------------

    def _resolve(self, answers: Sequence[_Answer], hints: Sequence[Hints]) -> None:
        for answer in answers:
            if answer.future.done():  # its caller has gone
                continue
            if answer.error is None:
                answer.future.set_result(answer.value)
            else:
                answer.future.set_exception(answer.error)
        for hint in hints:
            self._on_hints(hint)


def _as_promised(error: Exception) -> Exception:
    """The engine's refusal in the words of store.base; anything else is a bug, and stays what it is."""
    if isinstance(error, apsw.FullError):
        return StoreFull("the disk is full")
    if isinstance(error, (*_BROKEN, *_UNAVAILABLE)):
        return StoreUnavailable(f"{type(error).__name__}: {error}")
    return error
