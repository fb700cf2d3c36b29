"""The file in which workers note what they did: evidence that does not come from the server."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

What = Literal["ran", "accepted"]
"""A handler has done its work; the server has said OK to the completion."""


class Ledger:
    """Open for appending, by any number of processes at a time."""

    def __init__(self, path: Path) -> None:
        # One write to a line: lines of several processes do not mix, and a kill -9 leaves whole ones.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: What, job_id: str, fence: int) -> None:
        os.write(self._file, f"{what} {job_id} {fence}\n".encode())


class Entries:
    """What a ledger says: the fences under which each job ran, and under which its completion was accepted."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.ran: defaultdict[str, list[int]] = defaultdict(list)
        self.accepted: defaultdict[str, list[int]] = defaultdict(list)
        for line in lines:
            what, job_id, fence = line.split()
            (self.ran if what == "ran" else self.accepted)[job_id].append(int(fence))


def read(path: Path) -> Entries:
    """All that has been noted; nothing when nobody has."""
    return Entries(path.read_text().splitlines() if path.exists() else ())
