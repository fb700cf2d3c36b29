"""How chance writes tapes: steps that mean something where the tape has come to, and bring rare things together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

from tests.store.player import DECISIONS, SETTINGS, Player
from tests.store.tape import (
    DELIVERY,
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

from jobwire_server.domain.guard import is_overdue
from jobwire_server.domain.job import DAY, ENDED, HOUR, MINUTE, SECOND, Job, JobState
from jobwire_server.domain.worker import Directive
from jobwire_server.store.base import REFUSED_FOR

IDS: Final = "abcde"
QUEUES: Final = ("q", "r")
WORKERS: Final = ("u", "v", "w")

T = TypeVar("T")
_YES_NO: Final[Sequence[bool]] = (True, True, True, False)
_NO_YES: Final[Sequence[bool]] = (False, True)


def tape(random: Random, length: int) -> list[Step]:
    """Of so many steps, or some fewer."""
    writer = _Writer(random)
    return [step for _ in range(length) if (step := writer.write()) is not None]


class _Writer:
    """Plays what it writes, so that it knows what would mean something next."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._player = Player()

    def write(self) -> Step | None:
        """The next step; None where it would be nothing that anybody would do."""
        make = self._pick(_KINDS) if self._player.readings else _Writer.create
        step = make(self)
        call = None if step is None else self._player.call(step)
        if call is not None:
            call.of(self._player.model)
            self._player.look()
        return step if call is not None or isinstance(step, Wait | Outage) else None

    def _pick(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def _few(self, make: Callable[[], T]) -> tuple[T, ...]:
        return tuple(make() for _ in range(self._pick((1, 1, 1, 1, 2, 3))))

    def _read(self, id: str) -> int:
        """Which reading: as it is, mostly; else as it was before its last change, or long ago."""
        seen = self._player.readings[id]
        before = next((back for back in range(1, len(seen)) if seen[-1 - back].version != seen[-1].version), 0)
        return self._pick((0, 0, 0, 0, 0, 0, before, before, 1, 2, 5))

    def _id(self, likely: Callable[[Job], bool]) -> str:
        """One of the jobs there, mostly; now and then any that was seen, or one that has gone."""
        jobs, seen = self._player.model.jobs, sorted(self._player.readings)
        found = [job.id for job in jobs.values() if likely(job)] or seen
        gone = [id for id in seen if id not in jobs] or seen
        return self._pick(self._pick((found, found, found, found, seen, gone)))

    def create(self) -> Step:
        return Create(tuple(self._new() for _ in range(self._pick((1, 2, 3)))))

    def _new(self) -> New:
        return New(
            id=self._pick(IDS),
            queue=self._pick(QUEUES),
            retention=self._pick((None, SECOND, 0, None, SECOND)),
            due_in=self._pick((None, None, None, None, None, 0, SECOND, MINUTE)),
            expires_in=self._pick((*[None] * 6, SECOND, 2 * SECOND, MINUTE)),
            timeout=self._pick((None, None, SECOND, LEASE)),
            retries=self._pick((3, 1, 0)),
            key=self._pick(("", "", "k", "l")),
            content=self._pick((0, 0, 0, 1)),
            user=self._pick(("", "ann", "bob")),
            priority=self._pick((5, 5, 1, 2, 10)),
            is_id_given=self._pick(_YES_NO),
            webhook=self._pick((0, 0, 0, 0, 15, 1, 6)),
        )

    def claim(self) -> Step:
        waiting = {job.queue for job in self._player.model.jobs.values() if job.state is JobState.QUEUED}
        queue = self._pick((*sorted(waiting) * 3, *QUEUES))
        worker = self._pick(WORKERS)
        return Claim(self._few(lambda: self._wish(self._pick((worker, worker, *WORKERS)))), queue)

    def _wish(self, worker: str) -> Wish:
        return Wish(
            worker,
            number=self._pick((1, 1, 2, 2, 3, 3, 0)),
            session=self._pick((0, 0, 0, 0, 0, 0, 0, 1, -1)),
            credit=self._pick((2, 2, 3, 1)),
            delivery=self._pick((DELIVERY, 0, DELIVERY, 0, SECOND)),
            lease=self._pick((LEASE, SECOND)),
        )

    def moves(self) -> Step:
        return Moves(self._few(self._decide))

    def _decide(self) -> Decide:
        what = self._pick(_WANTED)
        model = self._player.model

        def is_likely(job: Job) -> bool:
            match what.split():
                case ["hand_back"]:
                    return job.state is JobState.IN_PROGRESS and not job.acknowledged
                case ["reap", *_]:
                    return job.state is JobState.IN_PROGRESS and is_overdue(job, now=model.now, recovered_at=0)
                case ["expire"]:
                    return job.state.is_waiting and job.is_expired(model.now)
                case ["cancel", *_]:
                    return not job.state.is_ended
                case ["replay"]:
                    return job.state.is_ended
                case ["edit", "schedule_time", *_]:
                    return job.state.is_waiting
                case ["edit", *_]:
                    return True
                case _:
                    return job.state is JobState.IN_PROGRESS

        id = self._id(is_likely)
        return Decide(what, id, self._read(id), brings_word=self._pick((True, True, True, False)))

    def again(self) -> Step | None:
        """Mostly what was the last thing that happened to its job."""
        sent = [(back, move) for back, move in enumerate(reversed(self._player.moves), 1)]
        last = {job.last_operation for job in self._player.model.jobs.values()}
        known = [back for back, move in sent if move.operation in last]
        return Moves((Again(self._pick([*known, *known, *(back for back, _ in sent[:3])])),)) if sent else None

    def cancel_what_runs(self) -> Step:
        return Moves((Decide(self._pick(("cancel", "cancel soon", "cancel at once")), self._id(_is_leased)),))

    def end_a_lease(self) -> Step:
        """Of a job that is to be canceled, where there is one, or of any."""
        what = self._pick(_ENDS)
        leased = [job for job in self._player.model.jobs.values() if _is_leased(job)]
        leased = [job for job in leased if not (what == "hand_back" and job.acknowledged)]
        canceled = [job for job in leased if job.cancel_requested]
        likely = self._pick((leased, canceled or leased))
        id = self._id(lambda job: job in likely)
        return Moves((Decide(what, id, self._read(id)),))

    def replay(self) -> Step:
        state = self._pick(sorted({job.state for job in self._player.model.jobs.values()} & ENDED) or [JobState.FAILED])
        id = self._id(lambda job: job.state is state)
        return Moves((Decide("replay", id, self._read(id)),))

    def reap_what_is_due(self) -> Step:
        due = self._player.model.overdue()
        return Moves(tuple(Decide("reap" if _is_leased(job) else "expire", job.id) for job in due))

    def renew(self) -> Step:
        return Renew(self._few(self._sign))

    def _sign(self) -> Sign:
        id = self._id(_is_leased)
        fraction, message = self._pick(((None, ""), (None, ""), (0.5, ""), (None, "on")))
        return Sign(id, self._read(id), fraction, message)

    def beat(self) -> Step:
        return Beat(self._pick(WORKERS), self._pick((None, None, 0, 1, -1)), self._pick(("", "host")))

    def seen(self) -> Step:
        return Seen(self._pick(((), WORKERS[:1], WORKERS[1:])))

    def direct(self) -> Step:
        # Mostly lifted again: a drained worker claims nothing, and most of what can happen begins with a claim.
        drained = [id for id, each in self._player.model.accounts.items() if each.directive is not Directive.NONE]
        if drained:
            return Direct(self._pick(sorted(drained)), self._pick(("none", "none", "terminate")))
        return Direct(self._pick((*WORKERS, "unknown")), self._pick(("quiet", "terminate", "none")))

    def delete(self) -> Step:
        state = self._pick(sorted({job.state for job in self._player.model.jobs.values()}) or [JobState.QUEUED])
        ids = self._few(lambda: self._id(lambda job: job.state is state))
        return Delete(tuple(Remove(id, self._read(id)) for id in ids))

    def promote(self) -> Step:
        return Sweep("promote", bite=self._pick((1000, 1, 2)))

    def purge(self) -> Step:
        return Sweep("purge", bite=self._pick((1000, 1, 2)))

    def overdue(self) -> Step:
        return Overdue(self._pick(((), ("q",), ("r", "q", "none"))), limit=self._pick((1000, 1, 2)))

    def leased(self) -> Step:
        queues = self._pick(((), ("q",), ("r", "q", "none")))
        return Leased(queues, longer_than=self._pick((0, 1, SECOND)), limit=self._pick((1000, 1, 2)))

    def put_queue(self) -> Step:
        name, what = self._pick((*sorted(self._player.model.settings), "none")), self._pick(_PUT)
        revision, create = self._pick(((None, False), (None, True), (0, False), (-1, False)))
        return PutQueue(name, what, revision, create)

    def names(self) -> Step:
        verb, names = self._pick((("queues", (*QUEUES, "none")), ("workers", WORKERS)))
        jobs = self._pick((0, 1, 100)) if verb == "workers" else 0
        return Names(verb, self._pick(((), names[:1], names[:0:-1])), bite=self._pick((1000, 1, 2)), jobs=jobs)

    def find(self) -> Step:
        now = self._player.clock.now
        ages = [now - job.create_time for job in self._player.model.jobs.values()] or [0]
        seen = self._pick(sorted(self._player.readings))
        return Find(
            bite=self._pick((1000, 1, 2)),
            is_count=self._pick(_NO_YES),
            queues=self._pick(((), (), ("q",), ("r", "none"))),
            states=self._pick(((), (), ("queued",), ("in_progress", "scheduled"), ("failed", "completed"))),
            user=self._pick(("", "", "ann", "nobody")),
            types=self._pick(((), (), (), ("type 0",))),
            created_from=self._pick((None, None, max(ages), min(ages))),
            created_before=self._pick((None, None, max(ages), min(ages) - 1)),
            behind=self._pick((None, (seen, self._read(seen)))),
        )

    def wait(self) -> Step:
        """For a moment, or until the next thing becomes due, or until just before that."""
        now, model = self._player.clock.now, self._player.model
        times = {
            *(time for job in model.jobs.values() for time in (job.score, job.expire_time, job.lease_expire_time)),
            *(account.returned_at + REFUSED_FOR for account in model.accounts.values()),
            model.recovered_at + DELIVERY,
            model.recovered_at + LEASE,
        }
        ahead = sorted(time - now for time in times if time is not None and time > now) or [1]
        until = self._pick((0, 0, -1)) + self._pick((*ahead[:3], *ahead))
        return Wait(self._pick((1, until, until, until, SECOND, SECOND, DELIVERY, LEASE, HOUR, DAY, -SECOND)))

    def outage(self) -> Step:
        return Outage()


def _is_leased(job: Job) -> bool:
    return job.state is JobState.IN_PROGRESS


_WANTED: Final = (
    *("complete", "complete", "complete without a result", "fail", "fail", "fail for good", "fail and retry at once"),
    *("release", "release for a second", *["hand_back"] * 4, *["reap"] * 4, "reap the stuck", *["expire"] * 4),
    *("recover", "recover", "recover the stuck", "recover slowly", "cancel", "cancel", "cancel soon", "cancel at once"),
    *["replay"] * 4,
    *(what for what in DECISIONS if what.startswith("edit")),
    *["edit schedule_time to later", "edit schedule_time to now"],
)
_ENDS: Final = (
    *("complete", "complete", "fail", "fail for good", "release", "release", "hand_back", "hand_back"),
    "release for a second",
    *("recover", "recover", "recover slowly", "recover slowly", "recover the stuck"),
)
_PUT: Final = (*SETTINGS, "pause", "resume", "resume", "ceiling 1", "no ceiling", "retention 1 s")
_KINDS: Final = (
    *[_Writer.create] * 7,
    *[_Writer.claim] * 11,
    *[_Writer.moves] * 9,
    *[_Writer.again] * 3,
    *[_Writer.cancel_what_runs] * 3,
    *[_Writer.end_a_lease] * 8,
    *[_Writer.replay] * 2,
    *[_Writer.reap_what_is_due] * 4,
    *[_Writer.renew] * 4,
    *[_Writer.wait] * 6,
    *[_Writer.beat] * 3,
    *[_Writer.direct] * 2,
    _Writer.seen,
    *[_Writer.promote] * 2,
    *[_Writer.purge] * 2,
    *[_Writer.overdue, _Writer.leased],
    *[_Writer.put_queue] * 4,
    *[_Writer.delete] * 2,
    *[_Writer.find] * 3,
    _Writer.names,
    _Writer.outage,
)
