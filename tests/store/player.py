"""What the steps of a tape mean: a Player makes the store's call of each, from what callers have seen so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from tests.store.making import Clock
from tests.store.model import Model
from tests.store.tape import (
    LEASE,
    Again,
    Beat,
    Claim,
    Create,
    Decide,
    Delete,
    Direct,
    Find,
    Leased,
    Moves,
    Names,
    New,
    Outage,
    Overdue,
    PutQueue,
    Remove,
    Renew,
    Seen,
    Sign,
    Step,
    Sweep,
    Wait,
    Wish,
)

from jobwire_server.domain import policy
from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import SECOND, Job, JobError, JobState, NewJob, RetryPolicy
from jobwire_server.domain.move import AnyMove, Deletion, Move
from jobwire_server.domain.queue import QueueChanges
from jobwire_server.domain.webhook import wants_word
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import ClaimRequest, Renewal

_BOOM = JobError("E", "it broke", (("k", "v"),))
_STUCK = policy.Recovery(max_interruptions=0)
_SLOWLY = policy.Recovery(initial_delay=SECOND)


def _token(job: Job) -> bytes:
    return job.token or b"never given"


def _fail(job: Job, now: int, *, permanent: bool = False, delay: int | None = None) -> Move:
    return policy.fail(job, _token(job), _BOOM, permanent=permanent, retry_delay=delay, now=now, random=0.5)


def _release(job: Job, now: int, delay: int) -> Move:
    return policy.release(job, _token(job), delay=delay, now=now, random=0.5)


def _cancel(job: Job, now: int, grace: int) -> Move | None:
    return policy.cancel(job, reason=f"{grace} µs", grace=grace, etag=None, now=now)


def _edit(job: Job, now: int, **changes: Any) -> Move:
    return policy.edit(job, changes, payload="submission" in changes, etag=None, now=now)  # type: ignore[arg-type]  # JobChanges by their names


DECISIONS: Final[Mapping[str, Callable[[Job, int], AnyMove | None]]] = {
    "complete": lambda job, now: policy.complete(job.id, _token(job), b"result"),
    "complete without a result": lambda job, now: policy.complete(job.id, _token(job), None),
    "fail": _fail,
    "fail for good": lambda job, now: _fail(job, now, permanent=True),
    "fail and retry at once": lambda job, now: _fail(job, now, delay=0),
    "release": lambda job, now: _release(job, now, 0),
    "release for a second": lambda job, now: _release(job, now, SECOND),
    "hand_back": lambda job, now: policy.hand_back(job, _token(job), now=now),
    "reap": lambda job, now: policy.reap(job, now=now, random=0.5),
    "reap the stuck": lambda job, now: policy.reap(job, now=now, random=0.5, recovery=_STUCK),
    "recover": lambda job, now: policy.recover(job, now=now, random=0.5),
    "recover the stuck": lambda job, now: policy.recover(job, now=now, random=0.5, recovery=_STUCK),
    "recover slowly": lambda job, now: policy.recover(job, now=now, random=0.5, recovery=_SLOWLY),
    "cancel": lambda job, now: _cancel(job, now, LEASE),
    "cancel soon": lambda job, now: _cancel(job, now, SECOND),
    "cancel at once": lambda job, now: _cancel(job, now, 0),
    "expire": lambda job, now: policy.expire(job),
    "replay": lambda job, now: policy.replay(job, etag=None),
    "edit priority up": lambda job, now: _edit(job, now, priority=1),
    "edit priority down": lambda job, now: _edit(job, now, priority=10),
    "edit schedule_time to later": lambda job, now: _edit(job, now, schedule_time=now + SECOND),
    "edit schedule_time to now": lambda job, now: _edit(job, now, schedule_time=now),
    "edit schedule_time away": lambda job, now: _edit(job, now, schedule_time=None),
    "edit expire_time to soon": lambda job, now: _edit(job, now, expire_time=now + SECOND),
    "edit expire_time away": lambda job, now: _edit(job, now, expire_time=None),
    "edit retention to none": lambda job, now: _edit(job, now, retention=0),
    "edit retention away": lambda job, now: _edit(job, now, retention=None),
    "edit submission": lambda job, now: _edit(job, now, submission=b"another"),
    "edit submission away": lambda job, now: _edit(job, now, submission=b""),
    "edit retry policy": lambda job, now: _edit(job, now, retry=RetryPolicy(0, max_interruptions=0)),
}
"""What people, workers and maintenance decide → the Move; None, or JobwireError, where there is nothing to do."""

SETTINGS: Final[Mapping[str, QueueChanges]] = {
    "nothing": {},
    "pause": {"paused": True},
    "resume": {"paused": False},
    "ceiling 1": {"max_in_flight": 1},
    "ceiling 2": {"max_in_flight": 2},
    "no ceiling": {"max_in_flight": None},
    "ageing 0": {"ageing": 0},
    "ageing 1 s": {"ageing": SECOND},
    "retention 0": {"retention": 0},
    "retention 1 s": {"retention": SECOND},
    "retention of the state": {"retention": None},
}

BY_ONE: Final = frozenset({"create", "move", "renew", "delete"})
"""Verbs that take a list and judge one item after the other."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a verb, the same for model and store."""

    verb: str
    given: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()
    bite: int | None = None
    """The limit to call a store with."""

    def of(self, model: Model) -> Any:
        answer = getattr(model, self.verb)
        if self.verb in BY_ONE:
            return [answer(item) for item in self.given[0]]
        return answer(*self.given, **dict(self.named))


class Player:
    """A model with its clock, and what callers have seen of it."""

    def __init__(self, *, purges_requests: bool = True) -> None:
        self.clock = Clock()
        self.model = Model(self.clock, purges_requests=purges_requests)
        self.readings: dict[str, list[Job]] = {}
        """Job id → every version of it that was seen, oldest first, through all lives of that id."""
        self.moves: list[AnyMove] = []
        """Every Move that was sent, oldest first."""
        self._tokens = 0
        self._words = 0

    def look(self) -> None:
        """Callers see the jobs as they are now."""
        for job in self.model.jobs.values():
            seen = self.readings.setdefault(job.id, [])
            if not seen or seen[-1] != job:
                seen.append(job)

    def call(self, step: Step) -> Call | None:
        """None where there is nothing to ask of a store: the clock is moved, or nobody would send that."""
        match step:
            case Wait(time):
                self.clock.now += time
            case Outage():
                self.model.recovered_at = self.clock.now
            case Create(jobs):
                # Two lives of an id never begin at one moment: a delete and a create lie between them, a call each.
                self.clock.now += 1
                return Call("create", ([self._new(new) for new in jobs],))
            case Claim(wishes, queue):
                return Call("claim", (queue, [self._request(wish) for wish in wishes]))
            case Moves(steps):
                moves = [move for each in steps if (move := self._move(each)) is not None]
                return Call("move", (moves,)) if moves else None
            case Renew(signs):
                return Call("renew", ([self._renewal(sign) for sign in signs],))
            case Beat(worker, session, host):
                return Call("beat", (WorkerInfo(id=worker, session=self._session(worker, session), host=host),))
            case Seen(workers):
                return Call("seen", (workers,))
            case Direct(worker, directive):
                return Call("direct", (worker, Directive(directive)))
            case Delete(jobs):
                deletions = [deletion for each in jobs if (deletion := self._deletion(each)) is not None]
                return Call("delete", (deletions,)) if deletions else None
            case Sweep(verb, bite):
                return Call(verb, bite=bite)
            case Overdue(queues, limit):
                return Call("overdue", (queues,), bite=limit)
            case Leased(queues, longer_than, limit):
                return Call("leased", (queues,), (("longer_than", longer_than),), bite=limit)
            case PutQueue(name, what, revision, create):
                if revision is not None:
                    settings = self.model.settings.get(name)
                    revision += 0 if settings is None else settings.revision
                return Call("put_queue", (name, SETTINGS[what]), (("revision", revision), ("create", create)))
            case Names(verb, names, bite, jobs):
                return Call(verb, (names,), (("jobs", jobs),) if jobs else (), bite=bite)
            case Find():
                wanted = self._filter(step)
                after = self._position(wanted, step.behind)
                return Call("count" if step.is_count else "find", (wanted, after), bite=step.bite)
        return None

    def _new(self, new: New) -> NewJob:
        now = self.clock.now
        return NewJob(
            id=new.id,
            queue=new.queue,
            type=f"type {new.content}",
            user_id=new.user,
            priority=new.priority,
            submission=b"asked" * new.content,
            digest=sha256(b"%d" % new.content).digest(),
            request_key=sha256(new.key.encode()).digest() if new.key else None,
            id_given=new.is_id_given,
            retry=RetryPolicy(max_retries=new.retries, max_interruptions=new.retries),
            execution_timeout=new.timeout,
            retention=new.retention,
            schedule_time=None if new.due_in is None else now + new.due_in,
            expire_time=None if new.expires_in is None else now + new.expires_in,
            webhook_events=new.webhook,
        )

    def _request(self, wish: Wish) -> ClaimRequest:
        first = self._tokens
        self._tokens += wish.number
        return ClaimRequest(
            worker_id=wish.worker,
            session=self._session(wish.worker, wish.session),
            max_in_flight=wish.credit,
            tokens=[sha256(b"%d" % number).digest()[:16] for number in range(first, self._tokens)],
            lease_duration=wish.lease,
            delivery_timeout=wish.delivery,
        )

    def _session(self, worker: str, above: int | None) -> int:
        account = self.model.accounts.get(worker)
        return 0 if above is None else max(0, above + (1 if account is None else account.info.session))

    def _reading(self, id: str, read: int) -> int | None:
        """Which of its readings that is; None when it was never seen."""
        return max(0, len(self.readings[id]) - 1 - read) if id in self.readings else None

    def _move(self, step: Decide | Again) -> AnyMove | None:
        found = self._sent(step) if isinstance(step, Again) else self._decided(step)
        if found is None:
            return None
        self.moves.append(found)
        return found

    def _sent(self, again: Again) -> AnyMove | None:
        return self.moves[-again.back] if again.back <= len(self.moves) else None

    def _decided(self, decide: Decide) -> AnyMove | None:
        reading = self._reading(decide.id, decide.read)
        if reading is None:
            return None
        job = self.readings[decide.id][reading]
        try:
            decided = DECISIONS[decide.what](job, self.clock.now)
        except JobwireError:
            return None
        if decided is None or not decide.brings_word or not wants_word(job, decided.as_move().to):
            return decided
        self._words += 1
        word = NewJob(id=f"word{self._words}", queue="r", submission=b"told", id_given=False)
        return replace(decided.as_move(), word=word)

    def _deletion(self, remove: Remove) -> Deletion | None:
        reading = self._reading(remove.id, remove.read)
        if reading is None:
            return None
        read = self.readings[remove.id][reading]
        return Deletion(remove.id, read.version, read.create_time)

    def _renewal(self, sign: Sign) -> Renewal:
        reading = self._reading(sign.id, sign.read)
        token = b"never given" if reading is None else _token(self.readings[sign.id][reading])
        return Renewal(job_id=sign.id, token=token, fraction=sign.fraction, message=sign.message)

    def _position(self, wanted: JobFilter, behind: tuple[str, int] | None) -> Position | None:
        reading = None if behind is None else self._reading(*behind)
        return None if reading is None or behind is None else wanted.position_of(self.readings[behind[0]][reading])

    def _filter(self, find: Find) -> JobFilter:
        now = self.clock.now
        return JobFilter(
            queues=frozenset(find.queues),
            states=frozenset(map(JobState, find.states)),
            user_id=find.user,
            types=frozenset(find.types),
            created_from=None if find.created_from is None else now - find.created_from,
            created_before=None if find.created_before is None else now - find.created_before,
        )
