"""What an operator's file says, kept while it cannot be read, and read anew when it has changed."""

from __future__ import annotations

import logging
import stat
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger("jobwire")


class BadFile(Exception):
    """A file cannot be used. The message names it, and holds nothing of what may be secret in it."""


class Kept(Generic[T]):
    """What `read` makes of some files. Files that cannot be used leave in force what was read before."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], T], *, what: str) -> None:
        """`what` the log calls it. Raises BadFile."""
        self._paths: Final = paths
        self._read: Final = read
        self._what: Final = what
        self._seen = self._stamps()
        self._value = read()

    @property
    def value(self) -> T:
        """It costs a `stat` of each file, 2 µs."""
        if (stamps := self._stamps()) != self._seen:
            self._seen = stamps
            try:
                self._value = self._read()
                log.info("the %s were read anew", self._what)
            except BadFile as error:
                log.error("the %s stay as they were: %s", self._what, error)
        return self._value

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def read_toml(path: Path, *, is_secret: bool = True) -> dict[str, Any]:
    """Raises BadFile."""
    try:
        return tomllib.loads(read_bytes(path, is_secret=is_secret).decode())
    except ValueError:  # a TOML error quotes the line, and that may be a secret
        raise BadFile(f"{path} is no TOML file") from None


def read_bytes(path: Path, *, is_secret: bool) -> bytes:
    """Where others than the owner can write the file, or read one that is secret, the log says so. Raises BadFile."""
    others = stat.S_IRWXG | stat.S_IRWXO if is_secret else stat.S_IWGRP | stat.S_IWOTH
    try:
        if path.stat().st_mode & others:
            read_or_written, mode = ("read", "600") if is_secret else ("written", "go-w")
            log.warning("%s can be %s by others than its owner: chmod %s", path, read_or_written, mode)
        return path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # it is said when it is read
    return found.st_mtime_ns, found.st_size, found.st_ino
