"""What the workers of a fault test say of themselves, line by line, and how a test waits for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, Self

PATIENCE: Final = 60.0
"""Seconds after which a test gives up. Nothing that goes well waits for it."""


class Kind(StrEnum):
    """What a worker can say of a run."""

    STARTED = "started"
    HOLDING = "holding"
    """The handler goes on only when it is told to, or is stopped."""
    ENDED = "ended"
    """The handler has returned, or was stopped."""
    SETTLED = "settled"
    """The settlement was answered."""


ACCEPTED: Final = "accepted"
REPEATED: Final = "repeated"
"""Accepted by an earlier sending whose answer was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of one worker."""

    worker: str
    kind: Kind
    job_id: str
    fence: int
    at: float
    """Of `time.monotonic`, which all processes of a machine share."""
    token: str = ""
    """Of STARTED only."""
    answer: str = ""
    """Of SETTLED only: ACCEPTED, REPEATED, or the reason of the refusal."""

    @property
    def is_accepted(self) -> bool:
        return self.answer in (ACCEPTED, REPEATED)

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Self:
        said = json.loads(line)
        return cls(**said | {"kind": Kind(said["kind"])})


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment. What was said before may be heard only now, so its place in the history alone does not tell."""

    number: int
    at: float


class History:
    """The events of all workers, in the order in which they were heard: of one worker, the order in which they were."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.started: Counter[str] = Counter()
        """Worker → handlers it has started."""
        self.done: set[str] = set()
        """Jobs whose settlement was accepted, or will be told by nobody: their worker was killed."""
        self._unsettled: dict[str, set[str]] = {}
        self._fault = ""
        self._changed = asyncio.Event()

    def add(self, event: Event) -> None:
        self.events.append(event)
        unsettled = self._unsettled.setdefault(event.worker, set())
        match event.kind:
            case Kind.STARTED:
                self.started[event.worker] += 1
                unsettled.add(event.job_id)
            case Kind.SETTLED:
                unsettled.discard(event.job_id)
                if event.is_accepted:
                    self.done.add(event.job_id)
            case _:
                pass
        self.touch()

    def killed(self, worker: str) -> None:
        """That worker will say nothing more."""
        self.done |= self._unsettled.pop(worker, set())
        self.touch()

    def fail(self, fault: str) -> None:
        """Whoever waits, now or later, is told that it is in vain."""
        self._fault = self._fault or fault
        self.touch()

    def touch(self) -> None:
        """Something that someone may wait for has changed."""
        self._changed.set()

    @property
    def total_started(self) -> int:
        return self.started.total()

    def mark(self) -> Mark:
        """This moment."""
        return Mark(len(self.events), time.monotonic())

    def mark_of(self, event: Event) -> Mark:
        """The moment of that event."""
        return Mark(self.events.index(event), event.at)

    def since(self, mark: Mark, kind: Kind, *, worker: str = "") -> Sequence[Event]:
        """Events of that kind after a moment, of one worker where one is named."""
        return [
            event
            for event in self.events[mark.number :]
            if event.kind is kind and event.at > mark.at and (not worker or event.worker == worker)
        ]

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Returns at a moment at which it holds; looks whenever something is heard."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    assert not self._fault, self._fault
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"it never came to be: {what}") from None
