"""A database is read without ever writing to it, beside a server at work or alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import apsw

from jobwire_server.store.base import CannotOpen
from jobwire_server.store.copying import half_filled
from jobwire_server.store.sqlite.opening import APPLICATION_ID, SCHEMA_VERSION, filled_from

_BUSY: Final = 5_000
"""Milliseconds to wait for a server that is just opening or closing the file."""

_STEPS: Final = 100_000
"""Of the engine's virtual machine: some milliseconds."""

T = TypeVar("T")


def read(path: Path, use: Callable[[apsw.Connection], T]) -> T:
    """What `use` makes of the database, as it was at one moment. Raises CannotOpen."""
    while True:
        before = stamp(path)
        if _log_of(path).exists():
            with reader(path) as connection:
                return use(connection)
        # Nobody has it open, and a mere reader would leave a -wal and a -shm behind. So it is read without them,
        # and without any lock: should somebody open it meanwhile, what was read is worth nothing.
        try:
            with reader(path) as connection:
                made = use(connection)
        except CannotOpen:
            if stamp(path) == before:
                raise
        else:
            if stamp(path) == before:
                return made


@contextmanager
def reader(path: Path) -> Iterator[apsw.Connection]:
    """A connection within a read transaction, to a database of ours. Raises CannotOpen.

    While nobody has the database open it takes no lock: whoever cannot be sure that this stays so uses `read`.
    """
    how = "mode=ro" if _log_of(path).exists() else "immutable=1"
    try:
        connection = apsw.Connection(f"{path.as_uri()}?{how}", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            connection.set_busy_timeout(_BUSY)
            # Within a long statement of the engine's Python hears of Ctrl-C only when it is called.
            connection.set_progress_handler(lambda: False, _STEPS)
            _check(connection, path)
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise CannotOpen(f"{path} is not all of a database, or damaged: {error}") from error
    except apsw.Error as error:
        raise CannotOpen(
            f"cannot read {path}: {error} (it takes the rights of the user whose server writes it, on the"
            " file and on the -wal and -shm beside it)"
        ) from error


def _check(connection: apsw.Connection, path: Path) -> None:
    if connection.pragma("application_id") != APPLICATION_ID:
        raise CannotOpen(f"{path} is no database of jobwire's")
    if (version := connection.pragma("user_version")) != SCHEMA_VERSION:
        raise CannotOpen(f"{path} has schema {version}, and this version of jobwire knows schema {SCHEMA_VERSION} only")
    if origin := filled_from(connection):
        raise CannotOpen(half_filled(str(path), origin))
    size, whole = path.stat().st_size, connection.pragma("page_count") * connection.pragma("page_size")
    if size < whole and not _log_of(path).exists():  # of a last page that is there in part SQLite makes up the rest
        raise CannotOpen(f"{path} is not all of a database: it has {size:,} of {whole:,} bytes")


def stamp(path: Path) -> tuple[object, ...]:
    """Changes with every change of the file, and while somebody has it open."""
    try:
        file = path.stat()
    except OSError as error:
        raise CannotOpen(f"cannot read {path}: {error.strerror}") from error
    return _log_of(path).exists(), file.st_ino, file.st_mtime_ns, file.st_size


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
