"""A backup of a database, page by page, beside a server at work on it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from jobwire_server.store.base import StoreUnavailable
from jobwire_server.store.copying import Copied
from jobwire_server.store.examination import Progress
from jobwire_server.store.sqlite import reading
from jobwire_server.store.sqlite.target import totals_of

_STEP: Final = 2_000
"""Pages, 8 MB, that are copied at once."""

_REQUESTS: Final = "SELECT count(*) FROM request"


def back_up(origin: Path, into: Path, progress: Progress) -> Copied:
    """Makes `into`, an empty file, the store as it is at one moment; answers what it holds. `progress` is told pages.

    While it reads, the server's write-ahead log grows, since nothing that this still needs may be taken out of it.
    """

    def copied(connection: apsw.Connection) -> Copied:
        connection.execute("SELECT 1 FROM meta").get  # noqa: B018  the transaction's moment is that of its first read
        copy = apsw.Connection(str(into), apsw.SQLITE_OPEN_READWRITE)
        try:
            copy.pragma("synchronous", "off")  # whoever named the file makes it safe when it is whole
            with copy.backup("main", connection, "main") as pages:
                while not pages.done:
                    pages.step(_STEP)
                    progress(pages.page_count - pages.remaining)
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot write {into}: {error}") from error
        finally:
            copy.close()
        return _all_of(connection)

    return reading.read(origin, copied)


def image(connection: apsw.Connection) -> tuple[bytes, Copied]:
    """What a database in memory would be in a file, and what it holds."""
    return connection.serialize("main"), _all_of(connection)


def contents(file: Path) -> Copied:
    """What a backup holds. Raises CannotOpen when it is none, or not all of one."""
    return reading.read(file, _all_of)


def _all_of(connection: apsw.Connection) -> Copied:
    totals = totals_of(connection)
    return Copied(read=totals, requests=int(connection.execute(_REQUESTS).get), counted=totals)
