"""What has to hold before a database may be used: the lock, the schema, and the durability that an OK promises."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import apsw

from jobwire_server.store.base import CannotOpen
from jobwire_server.store.copying import half_filled

SCHEMA_VERSION: Final = 5
"""Stands in `PRAGMA user_version`; raise it with every change of schema.sql or of a shape in codec.py."""

APPLICATION_ID: Final = 0x6A627772
"""Tells our files from any other SQLite database ("jbwr")."""

_STATEMENTS: Final = 256
"""Prepared statements kept by each connection; more than we have."""


class FileLock:
    """Keeps a second process away from the database for as long as this one lives.

    The lock belongs to the open file: the kernel drops it when the process ends, however it ends. The file itself
    stays, since removing it would let two processes lock two files of the same name.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._database = database
        self._file: int | None = None

    def acquire(self) -> None:
        if self._database.is_dir():
            raise CannotOpen(f"{self._database} is a folder, not a file")
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError as error:
            raise CannotOpen(f"the folder {self._path.parent} does not exist") from error
        except OSError as error:
            raise CannotOpen(f"cannot write in the folder {self._path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise CannotOpen(
                f"{self._database} is in use by process {holder}: a SQLite store serves one process at a time"
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that may write, and what was found when it was opened."""

    connection: apsw.Connection
    is_new: bool
    durability: str
    """As read back from the engine: what was asked for and what it does are two things."""


def open_file(path: Path, *, now: int) -> Opened:
    """Opens a database for writing and makes the schema when it is new. Raises CannotOpen."""
    _create(path)
    try:
        connection = _connect(str(path), apsw.SQLITE_OPEN_READWRITE)
        try:
            is_new = _is_new(connection, path)  # first of all: a file that is not ours stays as it is
            journal = connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full")
            # Where fsync stops at the drive's cache (macOS), this goes through it.
            connection.pragma("fullfsync", True)
            if is_new:
                _make_schema(connection, now=now)
        except BaseException:
            connection.close()
            raise
    except apsw.Error as error:
        raise CannotOpen(f"cannot open {path}: {error}") from error
    if journal != "wal" or connection.pragma("synchronous") != 2:
        connection.close()
        raise CannotOpen(f"cannot open {path}: its file system does not carry SQLite's write-ahead log")
    return Opened(connection, is_new, "fsynced")


def open_memory(*, now: int) -> Opened:
    connection = _connect(":memory:", apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    _make_schema(connection, now=now)
    return Opened(connection, True, "none")


def open_reader(path: Path) -> apsw.Connection:
    """A connection that cannot write, for a database that is open for writing already."""
    return _connect(str(path), apsw.SQLITE_OPEN_READONLY)


def _create(path: Path) -> None:
    """Makes an empty file that only its owner can read: payloads may be anybody's secrets. SQLite's own files beside
    it take over its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise CannotOpen(f"cannot create {path}: {error.strerror}") from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a power cut could take the whole file, fsynced pages and all
    finally:
        os.close(folder)


def _connect(name: str, flags: int) -> apsw.Connection:
    connection = apsw.Connection(name, flags, statementcachesize=_STATEMENTS)
    # Without it, SQLite plans every statement anew at each binding to see whether a partial index fits the value: a
    # read by id took 100 µs instead of 15.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.pragma("cache_size", -65_536)  # KiB
    connection.pragma("temp_store", "memory")
    return connection


def _is_new(connection: apsw.Connection, path: Path) -> bool:
    """Whether the database is empty. Raises CannotOpen when it is neither empty nor ours."""
    version = connection.pragma("user_version")
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
        return True
    if connection.pragma("application_id") != APPLICATION_ID:
        raise CannotOpen(f"{path} is a SQLite database, but not one of jobwire's")
    if version != SCHEMA_VERSION:
        raise CannotOpen(
            f"{path} has schema {version}, and this server knows schema {SCHEMA_VERSION} only: "
            "start the version of jobwire that wrote it, or name another file"
        )
    if origin := filled_from(connection):
        raise CannotOpen(half_filled(str(path), origin))
    return False


def filled_from(connection: apsw.Connection) -> str:
    """Where what is in this database was being copied from when that ended before its end; empty when it did not."""
    found: str | None = connection.execute("SELECT value FROM meta WHERE name = 'filled_from'").get
    return found or ""


def _make_schema(connection: apsw.Connection, *, now: int) -> None:
    """In one transaction: a crash leaves all of it or nothing."""
    with connection:
        connection.execute(files(__package__).joinpath("schema.sql").read_text(encoding="utf-8"))
        connection.execute("INSERT INTO meta VALUES ('create_time', ?)", (str(now),))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", SCHEMA_VERSION)
