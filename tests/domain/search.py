"""Breadth first through every state that a world can get into; the first promise broken ends it, with the story how."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from tests.domain.life import NOW
from tests.domain.likeness import Row, Sent
from tests.domain.promises import WORKERS, Broken
from tests.domain.world import Beliefs, Label, State, World, mirrored

from jobwire_server.domain.job import JobState


class Counterexample(AssertionError):
    """A promise can be broken; the message is the shortest story of how."""


@dataclass(frozen=True, slots=True)
class Explored:
    """Every state there is, and for each the indexes of those that can come next."""

    states: list[State]
    nexts: list[array[int]]

    @property
    def transitions(self) -> int:
        return sum(map(len, self.nexts))


def explore(world: World) -> Explored:
    """All states within reach. Raises the Counterexample where a promise is broken on the way."""
    states = [mirrored(world.start)]
    index = {states[0]: 0}
    found_from = [0]
    nexts = []
    for at, state in enumerate(states):  # grows while we go
        reached = set()
        try:
            for _, step in world.steps(state):
                after = mirrored(step)
                number = index.setdefault(after, len(states))
                if number == len(states):
                    states.append(after)
                    found_from.append(at)
                reached.add(number)
        except Broken as broken:
            raise Counterexample(_story(world, _path(states, found_from, at), broken)) from broken
        nexts.append(array("L", reached))
    return Explored(states, nexts)


def dead_ends(explored: Explored, is_end: Callable[[State], bool]) -> list[State]:
    """The states from which no sequence of steps leads to an end."""
    before: list[list[int]] = [[] for _ in explored.states]
    for number, following in enumerate(explored.nexts):
        for each in following:
            before[each].append(number)
    todo = [number for number, state in enumerate(explored.states) if is_end(state)]
    saved = set(todo)
    while todo:
        for each in before[todo.pop()]:
            if each not in saved:
                saved.add(each)
                todo.append(each)
    return [state for number, state in enumerate(explored.states) if number not in saved]


def _path(states: list[State], found_from: list[int], at: int) -> list[State]:
    path = [at]
    while path[-1]:
        path.append(found_from[path[-1]])
    return [states[number] for number in reversed(path)]


def _story(world: World, path: list[State], broken: Broken) -> str:
    """What happened, a line a step, with how the jobs stood after it."""
    # Along states that are not mirrored, where worker A stays the same one.
    state, lines = world.start, []
    for wanted in path[1:]:
        label, state = next((label, after) for label, after in world.steps(state) if mirrored(after) == wanted)
        lines.append(f"{_sentence(label)}  [{'; '.join(_standing(life.row) for life in state.lives)}]")
    try:
        for _ in world.steps(state):
            pass
    except Broken:
        lines.append(_sentence(world.doing))
    told = "".join(f"\n{number:3}. {line}" for number, line in enumerate(lines, 1))
    return f"{broken}:{told}\n     ... and {broken}"


def _sentence(label: Label) -> str:
    words, *gaps = label
    return str(words).format(*(gap if isinstance(gap, str) else _named(*gap) for gap in gaps))


def _named(sent: Sent, beliefs: Beliefs) -> str:
    """Whose Move it is, and where it would take the job."""
    move = sent.move
    what = f"{sent.detail} {move.verb}".lstrip()
    whose = "an" if what[0] in "aeiou" else "a"
    if sent.token:
        whose = next(
            (f"{name}'s" for name, token in zip(WORKERS, beliefs, strict=True) if token == sent.token), "a late"
        )
    return f"{whose} {what} (to {move.to.name})" if move.changes else f"{whose} {what}"


def _standing(row: Row | None) -> str:
    if row is None:
        return "gone"
    job = row.job
    words = [job.state.name]
    if job.state is JobState.IN_PROGRESS:
        words += [f"with {job.worker_id}", "heard" if job.acknowledged else "unheard"]
        words += ["overdue"] if job.score <= NOW else []
    return ", ".join([*words, "cancel requested"] if job.cancel_requested else words)
