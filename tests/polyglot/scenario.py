"""Scenarios as they stand in scenarios.txt, and what an answer must hold to be the one that was told."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, Final

FILE: Final = Path(__file__).with_name("scenarios.txt")

Names = dict[str, str]
"""What stands behind a $name."""


@dataclass(slots=True)
class Step:
    who: str
    what: str
    given: str = ""
    """JSON with names in it."""
    expected: str = ""
    is_repeated: bool = False
    """Until what is expected comes back."""
    refused: str = ""

    def request(self, names: Names) -> Any:
        return json.loads(Template(self.given).substitute(names)) if self.given else None


@dataclass(slots=True)
class Scenario:
    sentence: str
    steps: list[Step] = field(default_factory=list)

    @property
    def id(self) -> str:
        return re.sub(r"\W+", "-", self.sentence.lower())

    @property
    def has_worker(self) -> bool:
        """The example's worker takes part, not only calls."""
        return any((step.who, step.what) == ("worker", "works") for step in self.steps)


@cache
def scenarios() -> list[Scenario]:
    told: list[Scenario] = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        words = line.split(maxsplit=2)
        if not words or words[0] == "#":
            continue
        if words[0] == "scenario":
            told.append(Scenario(line.removeprefix("scenario ")))
        elif not line.startswith(" "):
            who, what, *given = words
            told[-1].steps.append(Step(who, what, "".join(given)))
        elif words[0] in ("=", "~"):
            told[-1].steps[-1].expected = line.strip()[1:]
            told[-1].steps[-1].is_repeated = words[0] == "~"
        elif words[0] == "!":
            told[-1].steps[-1].refused = line.strip()[1:].strip()
        elif told[-1].steps[-1].expected:
            told[-1].steps[-1].expected += line
        else:
            told[-1].steps[-1].given += line
    return told


def differences(expected: Any, seen: Any, names: Names, at: str = "") -> list[str]:
    """Where what was seen lacks something that is expected; more may be there. Takes "?name" into `names`."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        return [
            difference
            for key, value in expected.items()
            # grpcurl writes the names of the protos, everybody else those of JSON.
            for difference in differences(value, seen.get(key, seen.get(_snake(key))), names, f"{at}.{key}")
        ]
    if isinstance(expected, list) and isinstance(seen, list) and len(expected) == len(seen):
        return [
            difference
            for number, (value, other) in enumerate(zip(expected, seen, strict=True))
            for difference in differences(value, other, names, f"{at}[{number}]")
        ]
    if isinstance(expected, str) and expected.startswith("?") and isinstance(seen, str):
        names[expected[1:]] = seen
        return []
    if isinstance(expected, str) and expected.startswith("!") and isinstance(seen, str):
        return [f"{at} is still {seen}"] if seen == names[expected[1:]] else []
    if expected == seen or (not expected and seen is None):  # protobuf's JSON leaves out what has its default
        return []
    return [f"{at or 'the answer'} is {json.dumps(seen)}, not {json.dumps(expected)}"]


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
