"""The scripts as they are sent, and one call of one: what goes in, and what comes of the answer.

A call has one JSON argument and one of bytes, and one of each in its answer, however many jobs it is about: redis-py
takes a microsecond or more for every argument and every element of an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, Generic, TypeVar

from jobwire_server.domain.activity import LONG, SHORT, Tally
from jobwire_server.domain.job import (
    DAY,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_RETENTION,
    MINUTE,
    SECOND,
    Job,
    JobState,
)
from jobwire_server.domain.queue import DEFAULT_AGEING, FORGOTTEN_AFTER, MIN_PRIORITY
from jobwire_server.domain.webhook import EVENTS, RESERVED
from jobwire_server.store.base import FOUND_BYTES, LOOK_PAST, MAX_RETURNED, REFUSED_FOR, SCAN, WORKER_FORGOTTEN_AFTER
from jobwire_server.store.redis import codec, keys

T = TypeVar("T")

RESENT_WITHIN: Final = 30 * SECOND
"""A call that may be sent again is remembered for so long; longer than any deadline of ours."""

WATCHED_FOR: Final = 10 * SECOND
"""Changes are told so long after a watcher has asked for it last; it asks every second."""

_NUMBERS: Final = {
    "DEFAULT_AGEING": DEFAULT_AGEING,
    "DEFAULT_PRIORITY": DEFAULT_PRIORITY,
    "MIN_PRIORITY": MIN_PRIORITY,
    "LOOK_PAST": LOOK_PAST,
    "MAX_RETURNED": MAX_RETURNED,
    "REFUSED_FOR": REFUSED_FOR,
    "REMEMBERED": DAY,  # how long a request id is
    "PURGE_PAUSE": MINUTE,  # after an outage
    "RESENT_WITHIN": RESENT_WITHIN // 1000,  # milliseconds
    "WATCHED_FOR": WATCHED_FOR // 1000,  # milliseconds
    "SWEPT_JUST_NOW": SECOND // 2,  # after the sweep of one server the others rest for so long
    "FORGOTTEN_AFTER": FORGOTTEN_AFTER,
    "WORKER_FORGOTTEN_AFTER": WORKER_FORGOTTEN_AFTER,
    "PURGED_AT_ONCE": 1000,  # queues that one purge looks into
    "FORGOTTEN_AT_ONCE": 100,  # queues, and workers, that one purge looks at
    "SCAN": SCAN,
    "FOUND_BYTES": FOUND_BYTES,
    "SHORT_STEP": SHORT.step,
    "SHORT_SLOTS": SHORT.slots,
    "LONG_STEP": LONG.step,
    "LONG_SLOTS": LONG.slots,
}

_STATES: Final = ", ".join(f"'{state}'" for state in JobState)
_TALLY: Final = ", ".join(f"'{field}'" for field in Tally._fields)
_EVENTS: Final = ", ".join(f"{state} = {bit}" for state, bit in EVENTS.items())
_RETENTION: Final = ", ".join(f"{state} = '{period}'" for state, period in DEFAULT_RETENTION.items())

_OURS: Final = {
    **keys.lua(),
    **{number: f"local {number} = {value}\n" for number, value in _NUMBERS.items()},
    "STATES": f"local STATES = {{ {_STATES} }} -- in the order of listings\n",
    "DEFAULT_RETENTION": f"local DEFAULT_RETENTION = {{ {_RETENTION} }}\n",
    "DEFAULT_QUEUE": f"local DEFAULT_QUEUE = '{DEFAULT_QUEUE}'\n",
    "RESERVED": f"local RESERVED = '{RESERVED}'\n",
    "EVENTS": f"local EVENTS = {{ {_EVENTS} }}\n",
    "tally_fields": f"local function tally_fields()\n    return {_TALLY}\nend\n",
}
"""Name → how it is said. A script begins with those that it uses: Lua takes 200 local names, and `move` has nearly so
many."""

_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_COMMAND: Final = re.compile(r"\b(?:call|pcall|call_with|through)\('([A-Z]+)'")
_INCLUDE: Final = re.compile(r"^--!include (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as it is sent: known to the engine by the SHA-1 of its text."""

    name: str
    source: str
    sha: str
    writes: bool


@cache
def script(name: str) -> Script:
    """Puts a script together: its flags, the names of keys, our numbers and words, and the files that it includes."""
    text = _read(f"{name}.lua")
    flags, body = text.split("\n", 1)
    whole = _INCLUDE.sub(lambda found: "".join(map(_library, found[1].split())), body)
    words = {*_WORD.findall(whole)}
    source = f"{flags}\n{''.join(said for name, said in _OURS.items() if name in words)}{whole}"
    sha = sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha, writes="no-writes" not in flags)


def script_names() -> list[str]:
    """Of all scripts that there are."""
    found = (files(__package__) / "lua").iterdir()
    return sorted(each.name.removesuffix(".lua") for each in found if each.name.endswith(".lua"))


def commands() -> list[str]:
    """Of the engine, all that any script runs."""
    return sorted({command for name in script_names() for command in _COMMAND.findall(script(name).source)})


def _library(name: str) -> str:
    return _read(f"lib/{name}.lua")


def _read(path: str) -> str:
    return files(__package__).joinpath("lua").joinpath(path).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Answer:
    """What every script answers."""

    now: int
    change: int
    """The number of the change that it made; 0 when it made none."""
    hints: bytes
    """What it meant to those who wait, as JSON; empty when nothing."""
    json: bytes
    blob: bytes

    def content(self) -> Any:
        return json.loads(self.json)


class Unreadable(Exception):
    """The record of this job cannot be read."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the record of job {job_id!r} cannot be read")
        self.job_id: Final = job_id


class Jobs:
    """Reads jobs off an answer, in the order in which the script put them there."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._at = 0
        self._leased = codec.Leased()

    def next(self, found: Sequence[Any]) -> Job | None:
        """The job whose id and sizes these are; None for none. Raises Unreadable."""
        if not found:
            return None
        job_id, record, detail, spec, result = found
        try:
            if not detail and result < 0:
                return self._leased.decode(job_id, self._take(record), self._take(spec))
            return codec.decode(
                job_id,
                self._take(record),
                self._take(detail),
                self._take(spec),
                None if result < 0 else self._take(result),
                is_whole=True,
            )
        except codec.UNREADABLE as error:
            raise Unreadable(job_id) from error

    def every(self, found: Sequence[Any]) -> Iterator[Job]:
        for sizes in found:
            job = self.next(sizes)
            if job is not None:
                yield job

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._blob[self._at - size : self._at]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of a script."""

    script: Script
    arguments: str
    """What the script finds in ARGS, as JSON; numbers that may have more than 53 bits are texts there."""
    read: Callable[[Answer], T]
    blob: bytes = b""
    suspects: Callable[[], Call[list[str]]] | None = None
    """How to learn which jobs' records it may stumble over; None = it reads none."""
