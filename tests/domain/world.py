"""A world of two workers, a store of a row or two, and servers and people in between: every step that it can take.

Whatever may happen is a step that may also come late, or never. Two things last longer than a step:

- A *belief*: the token of a lease that a worker was given. It beats and settles under it, in whatever way and however
  late, until an answer reaches it or it crashes. A delivery on its way is a belief that nothing has come of yet, a lost
  one is a crash, and a call on its way to a server is one that the worker makes later. Of two runs of a job in one
  worker the newest wins, so each believes in one lease of a job at most.
- What is *sent*: a Move that was decided from the row as it was read, on its way to the store. A lost Move is one that
  was never sent, and one that is STALE, decided anew, is one that someone decides later. A Move whose answer was lost
  is sent again; if other things have happened by then, whoever sent it is left without an answer.

People and servers may want anything of any row, again and again: only the policy and the guards keep them from harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, NamedTuple

from tests.domain import promises
from tests.domain.life import LEASE, NOW
from tests.domain.likeness import (
    LAST,
    OTHER,
    TICK,
    Names,
    Row,
    Sent,
    aged,
    can_hold,
    handed_over,
    in_order,
    overtaken,
    renamed,
    repeated,
    row_of,
    sent_aged,
    sent_of,
    sent_renamed,
)
from tests.domain.one_row import NEW, Rules, beaten, decision, due, leased, written
from tests.domain.promises import SETTLEMENTS, WORKERS, Truth, promise

from jobwire_server.domain import policy
from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.guard import Outcome, is_overdue
from jobwire_server.domain.job import Job, JobState, Verb
from jobwire_server.domain.policy import Settled

NOTHING: Final = b""
NOTHING_ASKED: Final[frozenset[bytes]] = frozenset()
Beliefs = tuple[bytes, bytes]
"""The token that A, and that B, believes in; NOTHING where it is none."""


class Life(NamedTuple):
    """Everything about one job."""

    row: Row | None
    beliefs: Beliefs
    sent: tuple[Sent, ...]


class State(NamedTuple):
    """The world between two steps."""

    lives: tuple[Life, ...]
    recovered_at: int
    """When the store last came back from an outage; 0 once that matters no more."""


Label = tuple[Any, ...]
"""What happened: a sentence with gaps, and what belongs into them."""
Step = tuple[Label, Row | None, Beliefs, tuple[Sent, ...]]
"""What can happen to one job, and what there is of it after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What there is in a world, and what is done in it."""

    verbs: frozenset[Verb]
    """Those decided by people and servers; the store's own always happen."""
    job: Job
    jobs: int = 1
    max_in_flight: int = 1
    """Of each worker."""
    sent_at_most: int = 2
    """Moves under way at a time."""
    has_outages: bool = False
    readers_look: bool = False
    """Servers decide only where the row that they have read says that there is something to do."""


WISHES: Final = (
    *((verb, "") for verb in SETTLEMENTS),
    (Verb.FAIL, "permanent"),
    (Verb.HAND_BACK, ""),
    (Verb.REAP, ""),
    (Verb.RECOVER, ""),
    (Verb.EXPIRE, ""),
    (Verb.CANCEL, ""),
    (Verb.EDIT, ""),
    (Verb.EDIT, "now"),
    (Verb.EDIT, "later"),
    (Verb.REPLAY, ""),
    (Verb.DELETE, ""),
    (Verb.DELETE, "force"),
)
"""What can be asked for, in each of its flavours."""


class World:
    """The steps of a play under some rules.

    `seen` is what the store has answered to which verb; `doing` is the step under way, for when it breaks a promise.
    """

    def __init__(self, play: Play, rules: Rules | None = None) -> None:
        self.play = play
        self.rules = rules or Rules()
        self.seen: set[tuple[Verb, Outcome]] = set()
        self.doing: Label = ("the world begins",)
        self._wishes = [wish for wish in WISHES if wish[0] in play.verbs]
        # What becomes of a row depends on little, and is asked again and again.
        self._decided = cache(self._decide)
        self._renewed = cache(self._renew)
        self._applied = cache(self._apply)
        self._refused = cache(self._refuse)
        self._still_matters = cache(self._matters)

    @property
    def start(self) -> State:
        row = row_of(self.play.job, Truth(), (False, False))
        return State((Life(row, (NOTHING, NOTHING), ()),) * self.play.jobs, 0)

    def steps(self, state: State) -> Iterator[tuple[Label, State]]:
        """Everything that can happen next."""
        lives, back = state
        room = self._room(lives)
        for i, life in enumerate(lives):
            for label, row, beliefs, sent in self._steps_of(life, back, room):
                after = self._settled_down(row, beliefs, sent, back)
                yield label, State((*lives[:i], after, *lives[i + 1 :]), back)
        yield from self._common_steps(lives, back)

    def _room(self, lives: tuple[Life, ...]) -> list[bool]:
        held = [sum(life.row is not None and life.row.accounts[worker] for life in lives) for worker in (0, 1)]
        promise(max(held) <= self.play.max_in_flight, "a worker holds more than its credit allows")
        return [self.rules.has_credit(count, self.play.max_in_flight) for count in held]

    # --- what happens to all at once ----------------------------------------------------------------------------

    def _common_steps(self, lives: tuple[Life, ...], back: int) -> Iterator[tuple[Label, State]]:
        self.doing = ("time passes",)
        later = tuple(
            Life(row and aged(row), beliefs, in_order([sent_aged(each) for each in sent]))
            for row, beliefs, sent in lives
        )
        yield self.doing, State(later, after_a_tick(back))
        if self.play.has_outages and back != NOW:
            yield ("the store was away, and comes back",), State(lives, NOW)
        for worker, name in enumerate(WORKERS):
            if any(life.beliefs[worker] for life in lives):
                without = tuple(
                    self._settled_down(row, _with(beliefs, worker, NOTHING), sent, back) for row, beliefs, sent in lives
                )
                yield ("worker {} crashes", name), State(without, back)
        if any(life.sent for life in lives):
            bare = tuple(self._settled_down(row, beliefs, (), back) for row, beliefs, _ in lives)
            yield ("the server crashes, and what was under way is lost",), State(bare, back)

    # --- what happens to one job --------------------------------------------------------------------------------

    def _steps_of(self, life: Life, back: int, room: list[bool]) -> Iterator[Step]:
        row, beliefs, sent = life
        if row is not None:
            yield from self._finds(row, beliefs, sent, room)
            if len(sent) < self.play.sent_at_most:
                yield from self._sendings(row, beliefs, sent, back)
        for worker, token in enumerate(beliefs):
            if token:
                yield from self._beats(row, beliefs, sent, worker)
        for i, each in enumerate(sent):
            yield from self._arrivals(row, beliefs, each, (*sent[:i], *sent[i + 1 :]), back)

    def _finds(self, row: Row, beliefs: Beliefs, sent: tuple[Sent, ...], room: list[bool]) -> Iterator[Step]:
        """The verbs with which the store finds a job and changes it in one step."""
        job = row.job
        if job.state is JobState.QUEUED and not job.is_expired(NOW):
            for worker, name in enumerate(WORKERS):
                for how in ("", ", without a delivery timeout") if room[worker] else ():
                    self.doing = ("worker {} claims the job{}", name, how)
                    self.seen.add((Verb.CLAIM, Outcome.OK))
                    after = leased(row, worker, bool(how))
                    yield self.doing, after, _with(beliefs, worker, NEW), _overtaken(sent)
        if job.state is JobState.SCHEDULED and job.score <= NOW:
            self.seen.add((Verb.PROMOTE, Outcome.OK))
            yield ("the job is due, and is promoted",), due(row), beliefs, _overtaken(sent)
        if job.state.is_ended and job.score <= NOW:
            self.seen.add((Verb.PURGE, Outcome.OK))
            yield ("the job is purged",), None, beliefs, sent

    def _beats(self, row: Row | None, beliefs: Beliefs, sent: tuple[Sent, ...], worker: int) -> Iterator[Step]:
        """A worker gives a sign of life for what it believes in; refused, it believes no more."""
        name, token = WORKERS[worker], beliefs[worker]
        self.doing = ("worker {} beats", name)
        after = row and self._renewed(row, token)
        if after is None or row is None:
            answer = "GONE" if row is None else "LOST"
            yield ("worker {} beats: {}", name, answer), row, _with(beliefs, worker, NOTHING), sent
        else:
            sent = sent if row.job.acknowledged else _overtaken(sent)
            yield ("worker {} beats: OK", name), after, beliefs, sent

    def _renew(self, row: Row, token: bytes) -> Row | None:
        """The row after a sign of life under this token; None where that is LOST."""
        after = beaten(row.job) if self.rules.may_renew(row.job, token) else None
        truth = promises.renewed(row.truth, row.job, after, token)
        return None if after is None else row_of(after, truth, row.accounts)

    # --- reading, deciding, sending -----------------------------------------------------------------------------

    def _sendings(self, row: Row, beliefs: Beliefs, sent: tuple[Sent, ...], back: int) -> Iterator[Step]:
        """Someone reads the job, decides, and sends the Move."""
        believed = [token for token in beliefs if token]
        given = {*believed, row.job.token or NOTHING} - {NOTHING}
        for verb, detail in self._wishes:
            for token in believed if verb in SETTLEMENTS else given if verb is Verb.HAND_BACK else (NOTHING,):
                if self.play.readers_look and not _has_reason(row.job, verb, token, back):
                    continue
                new = self._decided(row, verb, token, detail)
                if new is None:
                    continue
                self.doing = ("{} is sent, decided from the job as it is", (new, beliefs))
                if self._still_matters(row, new, back):
                    yield self.doing, row, beliefs, (*sent, new)
                else:
                    self._refused(row, new, back)

    def _decide(self, row: Row, verb: Verb, token: bytes, detail: str) -> Sent | None:
        """What the policy answers to the row as it was read; None where it refuses, or has nothing to do."""
        try:
            move = decision(row.job, verb, token, detail)
        except JobwireError:
            return None
        if move is None:
            return None
        asker = token if verb in SETTLEMENTS else NOTHING
        early = policy.settled(row.job, asker, verb) if self.rules.looks_up_first and asker else ""
        return sent_of(replace(self.rules.sent(move), operation=OTHER), asker, detail, looked_up=early)

    # --- arriving -----------------------------------------------------------------------------------------------

    def _arrivals(
        self, row: Row | None, beliefs: Beliefs, sent: Sent, others: tuple[Sent, ...], back: int
    ) -> Iterator[Step]:
        """A Move reaches the store, which judges its guard and applies it, or refuses it."""
        what = (sent, beliefs)
        self.doing = ("{} arrives", what)
        outcome, after = self._applied(row, sent, back)
        self.seen.add((sent.move.verb, outcome))
        if outcome is not Outcome.OK:
            yield from self._refusals(row, beliefs, sent, others, back)
            return
        told = _told(beliefs, sent)
        if sent.move.operation == LAST:
            yield ("{} arrives again: OK, it was applied before", what), row, told, others
            return
        others = _overtaken(others, by_operation=True)
        yield ("{} arrives: OK", what), after, told, others
        unheard = "{} arrives: OK, but nobody hears so"
        if told != beliefs:
            yield (unheard, what), after, beliefs, others
        yield (unheard + "; it is sent again", what), after, beliefs, (*others, repeated(sent))

    def _apply(self, row: Row | None, sent: Sent, back: int) -> tuple[Outcome, Row | None]:
        """What the store answers, and the row after that."""
        move = sent.move
        outcome = self.rules.judge(move, None if row is None else row.job, recovered_at=back)
        if row is None or outcome is not Outcome.OK:
            return outcome, row
        if move.operation == LAST:
            _answer(row.truth, sent, None)
            return outcome, row
        promise(not sent.is_repeat, f"one request to {move.verb} took effect twice")
        by_force = sent.detail == "force" or row.job.state is not JobState.IN_PROGRESS
        promise(move.verb is not Verb.DELETE or by_force, "a job was deleted under its worker, and nobody forced it")
        after, accounts = written(row, move)
        truth = promises.moved(row.truth, move.verb, sent.token, row.job, after, back)
        _answer(truth, sent, None)
        return outcome, None if after is None else row_of(after, truth, accounts)

    def _refusals(
        self, row: Row | None, beliefs: Beliefs, sent: Sent, others: tuple[Sent, ...], back: int
    ) -> Iterator[Step]:
        answer = self._refused(row, sent, back)
        yield ("{} arrives: {}", (sent, beliefs), answer), row, _told(beliefs, sent), others
        if sent.is_repeat and row is not None and self.rules.decides_repeats_anew:
            anew = self._decided(row, sent.move.verb, sent.token, sent.detail)
            if anew is not None:
                others = (*others, sent_of(anew.move, anew.token, anew.detail, is_repeat=True))
                yield ("{} arrives again: {}; it is decided anew", (sent, beliefs), answer), row, beliefs, others

    def _refuse(self, row: Row | None, sent: Sent, back: int) -> str:
        """What is heard of a Move that the store refuses."""
        move = sent.move
        outcome = self.rules.judge(move, None if row is None else row.job, recovered_at=back)
        self.seen.add((move.verb, outcome))
        was_applied = row is not None and move.operation == LAST
        promise(not was_applied, f"a {move.verb} that was applied a moment ago was refused when it came again")
        if row is None or outcome is not Outcome.LOST or not sent.token:
            return outcome.name
        answer = Settled(sent.looked_up) if sent.looked_up else policy.settled(row.job, sent.token, move.verb)
        _answer(row.truth, sent, answer)
        return f"{outcome.name}, settled {answer}"

    # --- the one form of all worlds alike -----------------------------------------------------------------------

    def _settled_down(self, row: Row | None, beliefs: Beliefs, sent: tuple[Sent, ...], back: int) -> Life:
        """The life after a step. What can never pass again arrives at once, for it changes nothing whenever it does;
        and tokens are numbered anew."""
        live, tokens = [], NOTHING_ASKED
        for each in sent:
            if self._still_matters(row, each, back):
                live.append(each)
                tokens |= each.tokens
            else:
                self._refused(row, each, back)
        row, beliefs, names = _named(row, beliefs, tokens)
        return Life(row, beliefs, in_order([sent_renamed(each, names) for each in live]))

    def _matters(self, row: Row | None, sent: Sent, back: int) -> bool:
        """Whether it may be applied yet, or is recognized as applied before, or a weaker rule makes something of it."""
        if row is None:
            return False
        if can_hold(sent.move.guard, row) or sent.move.operation == LAST:
            return True
        is_weak = bool(sent.looked_up) or (sent.is_repeat and self.rules.decides_repeats_anew)
        return is_weak or self.rules.judge(sent.move, row.job, recovered_at=back) is Outcome.OK


def _has_reason(job: Job, verb: Verb, token: bytes, recovered_at: int) -> bool:
    """Whether a server, looking at the row, would want this of it: the services do look."""
    is_leased = job.state is JobState.IN_PROGRESS
    match verb:
        case Verb.HAND_BACK:
            return is_leased and job.token == token and not job.acknowledged
        case Verb.REAP:
            return is_leased and is_overdue(job, now=NOW, recovered_at=recovered_at)
        case Verb.RECOVER:
            return is_leased
        case _:
            return True


def after_a_tick(recovered_at: int) -> int:
    """When the store came back, a TICK later; 0 once no lease is old enough for that to matter."""
    return recovered_at - TICK if recovered_at and recovered_at - TICK + LEASE > NOW else 0


def _answer(truth: Truth, sent: Sent, answer: Settled | None) -> None:
    if sent.token:
        promises.answered(truth, sent.token, sent.move.verb, answer)


def _with(beliefs: Beliefs, worker: int, token: bytes) -> Beliefs:
    return (beliefs[0], token) if worker else (token, beliefs[1])


def _told(beliefs: Beliefs, sent: Sent) -> Beliefs:
    """Whoever settled has its answer, and is done with that lease."""
    a, b = beliefs
    return NOTHING if a == sent.token else a, NOTHING if b == sent.token else b


def _overtaken(sent: tuple[Sent, ...], *, by_operation: bool = False) -> tuple[Sent, ...]:
    return tuple(overtaken(each, by_operation) for each in sent)


@cache
def _named(row: Row | None, beliefs: Beliefs, tokens: frozenset[bytes]) -> tuple[Row | None, Beliefs, Names]:
    """Numbers the tokens that anybody could still ask about, and forgets the others."""
    known = {*beliefs, *tokens} - {NOTHING}
    if row is not None and row.job.state is JobState.IN_PROGRESS and row.job.token is not None:
        known.add(row.job.token)
    names = tuple((old, bytes([new])) for new, old in enumerate(sorted(known), 1))
    new = {NOTHING: NOTHING, **dict(names)}
    return row and renamed(row, names), (new[beliefs[0]], new[beliefs[1]]), names


def mirrored(state: State) -> State:
    """The one form of a state and its mirror image: the workers differ in nothing but their names."""
    for row, (believes_a, believes_b), _ in state.lives:
        holds_a, holds_b = (False, False) if row is None else row.accounts
        if (holds_a, believes_a) > (holds_b, believes_b):
            return state
        if (holds_a, believes_a) < (holds_b, believes_b):
            return State(tuple(map(_mirrored, state.lives)), state.recovered_at)
    return state


def _mirrored(life: Life) -> Life:
    a, b = life.beliefs
    return Life(life.row and handed_over(life.row), (b, a), life.sent)
