"""Makes a tape that fails short.

It works on the steps, not on the dice they were thrown with: each means the same whatever was left out before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

from tests.store.tape import Step

Fails = Callable[[list[Step]], bool]


def shortest(tape: list[Step], fails: Fails) -> list[Step]:
    """No step of it can be left out, and no part of a step, or it would not fail any more."""
    tape = _few(tape, fails)
    number = 0
    while number < len(tape):
        simpler = (each for each in _simpler(tape[number]) if fails([*tape[:number], each, *tape[number + 1 :]]))
        found = next(simpler, None)
        if found is None:
            number += 1
        else:
            tape[number] = found
    return _few(tape, fails)


def _few(tape: list[Step], fails: Fails) -> list[Step]:
    """Leaves out halves, then quarters, … and steps one by one until each is needed."""
    size = len(tape)
    while size:
        first, before = 0, len(tape)
        while first < len(tape):
            fewer = tape[:first] + tape[first + size :]
            if fails(fewer):
                tape = fewer
            else:
                first += size
        if size > 1 or len(tape) == before:
            size //= 2
    return tape


def _simpler(step: Any) -> Iterator[Any]:
    """The same step with one thing less said."""
    for each in fields(step):
        value = getattr(step, each.name)
        if isinstance(value, tuple) and any(isinstance(part, Step) for part in value):
            if len(value) > 1:
                yield from (replace(step, **{each.name: value[:n] + value[n + 1 :]}) for n in range(len(value)))
            for n, part in enumerate(value):
                yield from (replace(step, **{each.name: (*value[:n], new, *value[n + 1 :])}) for new in _simpler(part))
        elif each.default is not MISSING and value != each.default:
            yield replace(step, **{each.name: each.default})
