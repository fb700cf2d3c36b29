"""A file that is there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobwire_server.store.base import CannotOpen, StoreUnavailable


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside it to be written, which takes its name in the end, safe on the disk. What is there already stays.

    Raises CannotOpen. A process that is killed leaves the file beside it.
    """
    if path.exists():
        raise CannotOpen(_is_there(path))
    try:
        file, name = tempfile.mkstemp(prefix=f"{path.name}.part-", dir=path.parent)  # its owner alone can read it
    except OSError as error:
        raise CannotOpen(f"cannot write in the folder {path.parent}: {error.strerror}") from error
    os.close(file)
    part = Path(name)
    try:
        yield part
        _sync(part)
        _name(part, path)
        _sync(path.parent)
    except FileExistsError:
        raise CannotOpen(_is_there(path)) from None
    except OSError as error:
        raise StoreUnavailable(f"cannot write {path}: {error.strerror}") from error
    finally:
        for end in ("", "-wal", "-shm", "-journal", ".lock"):
            part.with_name(part.name + end).unlink(missing_ok=True)


def _name(part: Path, path: Path) -> None:
    """Raises FileExistsError."""
    try:
        os.link(part, path)  # a rename would replace what has come to be there since
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        part.rename(path)


def _is_there(path: Path) -> str:
    return f"{path} is there already, and is not replaced: name another file, or remove it"


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
