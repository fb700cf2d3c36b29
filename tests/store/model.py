"""What a store has to answer, said as simply as it can be: a dict of jobs, filtered and sorted anew for each question.

Written from store/base.py and domain/, never from a store. The verbs are those of `base.Store` without the waiting, for
one item where a store takes a list. They know no limits: sweeps take all there is, listings come whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobwire_server.domain.activity import ENDED_BY, RINGS, Event, Ring, Tally, by_minute, lately
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome, is_overdue, judge
from jobwire_server.domain.job import DAY, DEFAULT_RETENTION, MINUTE, Job, JobState, NewJob, Progress, Verb
from jobwire_server.domain.move import AnyMove, Deletion, Move
from jobwire_server.domain.queue import FORGOTTEN_AFTER, Queue, QueueChanges, next_queue_time, rank
from jobwire_server.domain.webhook import wants_word
from jobwire_server.domain.worker import Directive, WorkerInfo, WorkerRecord
from jobwire_server.store import base
from jobwire_server.store.base import ClaimOutcome, CreateOutcome

_ALL = JobFilter()
_ZERO = {"int": 0, "str": "", "bytes": b"", "bool": False, "tuple[Attempt, ...]": ()}
_BLANK: dict[str, Any] = {name: _ZERO.get(kind.__forward_arg__) for name, kind in Job.__annotations__.items()}
_ASKED = {*NewJob._fields} & _BLANK.keys()


def _standing(job: Job | None) -> base.Standing | None:
    return None if job is None else base.Standing.of(job)


@dataclass(slots=True)
class Account:
    """A worker, and what became of its deliveries."""

    info: WorkerInfo
    register_time: int
    last_beat: int
    last_seen: int = 0
    directive: Directive = Directive.NONE
    returns: int = 0
    returned_at: int = 0
    returned_claim: int | None = None
    silent: bool = False

    def hear(self) -> None:
        """It renewed or settled: deliveries reach it."""
        self.returns, self.silent = 0, False


class Model:
    """A store without storage. `clock` is the store's; `purges_requests`: its `purge` counts forgotten request ids."""

    def __init__(self, clock: Callable[[], int], *, purges_requests: bool) -> None:
        self._clock = clock
        self._purges_requests = purges_requests
        self.recovered_at = 0
        self.jobs: dict[str, Job] = {}
        self.settings: dict[str, Queue] = {}
        self.accounts: dict[str, Account] = {}
        self._digests: dict[str, bytes] = {}
        self._requests: dict[bytes | None, tuple[str, bytes, int]] = {}
        """Key → job id, digest, when it is forgotten."""
        self._last_queue_times: Counter[str] = Counter()
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self._tallied_at: Counter[str] = Counter()
        self._marks: defaultdict[str, dict[tuple[Ring, int], tuple[tuple[Ring, int], Tally]]] = defaultdict(dict)
        """Queue → ring and slot → ring and number of the step, and the tally before it."""

    @property
    def now(self) -> int:
        return self._clock()

    # --- single jobs ----------------------------------------------------------------------------------------

    def create(self, new: NewJob) -> base.Created:
        job_id, digest, forgotten_at = self._requests.get(new.request_key, (new.id, b"", 0))
        is_known, exists = forgotten_at > self.now, new.id in self.jobs
        if is_known and digest != new.digest:
            return base.Created(CreateOutcome.REQUEST_REUSED, job_id)
        if not is_known and exists and not (new.id_given and self._digests[new.id] == new.digest):
            return base.Created(CreateOutcome.ID_TAKEN, new.id)
        if not is_known and new.request_key is not None:
            self._requests[new.request_key] = (new.id, new.digest, self.now + DAY)
        if is_known or exists:
            found = self.jobs.get(job_id if is_known else new.id)
            return base.Created(CreateOutcome.EXISTED, found.id if found else job_id, self._position(found), job=found)
        self._digests[new.id] = new.digest
        self._make_queue(new.queue)
        state = JobState.QUEUED if (new.schedule_time or 0) <= self.now else JobState.SCHEDULED
        asked = {name: getattr(new, name) for name in _ASKED}
        job = self._put(Job(**{**_BLANK, **asked, "state": state, "create_time": self.now, "history": ()}))
        self._tally(new.queue, Event.CREATED)
        return base.Created(CreateOutcome.CREATED, job.id, self._position(job), base.Standing.of(job))

    def _position(self, job: Job | None) -> int:
        return len(self._in(JobState.QUEUED, job.queue)) if job and job.state is JobState.QUEUED else 0

    def get(self, job_ids: Sequence[str]) -> base.Snapshot:
        return base.Snapshot(self.now, [self.jobs.get(id) for id in job_ids])

    def move(self, decided: AnyMove) -> base.Moved:
        move = decided.as_move()
        job, to = self.jobs.get(move.job_id), move.to
        outcome = judge(move.guard, job, operation=move.operation, now=self.now, recovered_at=self.recovered_at)
        if job is None or outcome is not Outcome.OK:
            return base.Moved(outcome, job=job)
        if job.last_operation == move.operation:
            return base.Moved(outcome, _standing(job))
        if wants_word(job, to):
            if move.word is None:
                return base.Moved(Outcome.STALE, job=job)
            self.create(move.word)
        is_end = to.is_ended and not job.state.is_ended
        moved: Job = job._replace(**move.changes, state=to, last_operation=move.operation)
        if move.outcome is not None:
            start = moved.claim_time if moved.start_time is None else moved.start_time
            moved = moved._replace(outcome=move.outcome, end_time=self.now, start_time=start)
        if is_end:
            moved = moved._replace(finish_time=self.now)
        if job.state is JobState.IN_PROGRESS is not to:
            moved = moved._replace(lease_expire_time=None, acknowledged=False)
            self._book_end_of_lease(job, move.verb)
        self._tally_move(job, move)
        moved = self._put(moved, is_edit=move.verb is not Verb.CANCEL or to is not JobState.IN_PROGRESS)
        if is_end and moved.score == moved.finish_time:
            del self.jobs[job.id]
        return base.Moved(Outcome.OK, _standing(self.jobs.get(job.id)))

    def _tally_move(self, job: Job, move: Move) -> None:
        if move.to is not job.state and move.to in ENDED_BY:
            self._tally(job.queue, ENDED_BY[move.to])
        if move.cost is not None:
            self._tally(job.queue, move.cost)
        if (job.state, move.to) == (JobState.IN_PROGRESS, JobState.COMPLETED):
            self._tally(job.queue, "run_time", max(0, self.now - (job.claim_time or 0)))

    def _book_end_of_lease(self, job: Job, verb: Verb) -> None:
        account = self._account(job.worker_id)
        if verb in (Verb.COMPLETE, Verb.FAIL, Verb.RELEASE):
            account.hear()
        is_return = verb in (Verb.HAND_BACK, Verb.REAP, Verb.RECOVER) and not job.acknowledged
        if is_return and job.claim_time is not None and job.claim_time > self.recovered_at:
            account.returns += account.returned_claim != job.claim_time  # what one claim handed out counts once
            account.returned_claim, account.returned_at = job.claim_time, self.now
            is_unheard = job.claim_time >= account.last_beat
            account.silent = account.silent or (verb is Verb.REAP and is_unheard)

    def delete(self, deletion: Deletion) -> Outcome:
        job = self.jobs.get(deletion.job_id)
        if job is not None and (job.version, job.create_time) == (deletion.version, deletion.create_time):
            del self.jobs[job.id]
            return Outcome.OK
        return Outcome.GONE if job is None else Outcome.STALE

    # --- leases ---------------------------------------------------------------------------------------------

    def claim(self, queue: str, requests: Sequence[base.ClaimRequest]) -> base.Claims:
        outcomes = [self._may_claim(request) for request in requests]
        room, granted, limits = self._room(queue), Counter[str](), []
        for request, outcome in zip(requests, outcomes, strict=True):
            credit = request.max_in_flight - self.held(request.worker_id) - granted[request.worker_id]
            limit = max(0, min(len(request.tokens), credit, room - granted.total()))
            limits.append(limit if outcome is ClaimOutcome.OK else 0)
            granted[request.worker_id] += limits[-1]
        seen = self._in(JobState.QUEUED, queue)[: sum(limits)]
        if any(job.is_expired(self.now) for job in seen):
            seen = self._in(JobState.QUEUED, queue)[: sum(limits) + base.LOOK_PAST]
        alive = [job for job in seen if not job.is_expired(self.now)]
        expired, head = len(seen) - len(alive), iter(alive)
        leased = []
        for request, limit in zip(requests, limits, strict=True):
            pairs = zip(request.tokens[:limit], head, strict=False)
            leased.append([self._lease(job, request, token) for token, job in pairs])
        held = [self.held(request.worker_id) for request in requests]
        claimed = [base.Claimed(*answer) for answer in zip(outcomes, leased, held, strict=True)]
        left = len(self._in(JobState.QUEUED, queue)) - expired
        return base.Claims(self.now, claimed, max(0, min(left, self._room(queue))))

    def _room(self, queue: str) -> int:
        """How many more of its jobs may be IN_PROGRESS."""
        settings = self.settings.get(queue, Queue(name=queue))
        waiting, running = len(self._in(JobState.QUEUED, queue)), len(self._in(JobState.IN_PROGRESS, queue))
        ceiling = waiting + running if settings.max_in_flight is None else settings.max_in_flight
        return 0 if settings.paused else min(waiting, ceiling - running)

    def _may_claim(self, request: base.ClaimRequest) -> ClaimOutcome:
        account = self._account(request.worker_id)
        if request.session < account.info.session:
            return ClaimOutcome.SUPERSEDED
        account.info = replace(account.info, session=request.session)
        if account.directive is not Directive.NONE:
            return ClaimOutcome.QUIET
        if account.silent:
            return ClaimOutcome.SILENT
        is_refused = account.returns >= base.MAX_RETURNED and self.now < account.returned_at + base.REFUSED_FOR
        return ClaimOutcome.NOT_ACKNOWLEDGING if is_refused else ClaimOutcome.OK

    def _lease(self, job: Job, request: base.ClaimRequest, token: bytes) -> Job:
        fence, end = max(job.fence + 1, self.now), self.now + request.delivery_timeout
        self._tally(job.queue, Event.CLAIMED)
        job = job._replace(state=JobState.IN_PROGRESS, attempt=job.attempt + 1, token=token, fence=fence)
        job = job._replace(worker_id=request.worker_id, claim_time=self.now, limit_time=None, lease_expire_time=end)
        job = job._replace(outcome=None, end_time=None, progress=None, lease_duration=request.lease_duration)
        return self._put(self._extended(self._acknowledged(job)) if request.delivery_timeout == 0 else job)

    def _acknowledged(self, job: Job) -> Job:
        timeout = None if job.execution_timeout is None else self.now + job.execution_timeout
        start = job.claim_time if job.start_time is None else job.start_time
        limit = _soonest(job.limit_time, timeout)
        return job._replace(acknowledged=True, return_count=0, start_time=start, limit_time=limit)

    def _extended(self, job: Job) -> Job:
        return job._replace(lease_expire_time=_soonest(self.now + job.lease_duration, job.limit_time))

    def renew(self, renewal: base.Renewal) -> base.Renewed:
        job = self.jobs.get(renewal.job_id)
        if job is None:
            return base.Renewed(Outcome.GONE)
        if job.state is not JobState.IN_PROGRESS or job.token != renewal.token:
            return base.Renewed(Outcome.LOST)
        renewed = self._extended(job if job.acknowledged else self._acknowledged(job))
        if renewal.has_progress:
            renewed = renewed._replace(progress=Progress(renewal.fraction, renewal.message, self.now))
        job = self._put(renewed, is_edit=False, is_change=renewal.has_progress or not job.acknowledged)
        self._account(job.worker_id).hear()
        left = max(0, job.score - self.now)
        return base.Renewed(Outcome.OK, left, job.cancel_requested, job.cancel_reason, _standing(job))

    def beat(self, worker: WorkerInfo) -> Directive | None:
        account = self._account(worker.id)
        if 0 < worker.session < account.info.session:
            return None
        said = {name: getattr(worker, name) for name in WorkerInfo.__slots__ if getattr(worker, name)}
        account.info = replace(account.info, **said)  # what it leaves unsaid stays
        account.last_beat, account.silent = self.now, False
        return account.directive

    def seen(self, worker_ids: Sequence[str]) -> None:
        for id in self.accounts.keys() & {*worker_ids}:
            self.accounts[id].last_seen = self.now

    def direct(self, worker_id: str, directive: Directive) -> bool:
        if worker_id not in self.accounts:
            return False
        self.accounts[worker_id].directive = directive
        return True

    # --- sweeps ---------------------------------------------------------------------------------------------

    def promote(self) -> int:
        due = [job for job in self._in(JobState.SCHEDULED) if job.score <= self.now]
        return len([self._put(job._replace(state=JobState.QUEUED)) for job in due])

    def overdue(self, queues: Sequence[str] = ()) -> list[Job]:
        leases = self._in(JobState.IN_PROGRESS)
        late = [job for job in leases if is_overdue(job, now=self.now, recovered_at=self.recovered_at)]
        expired = [job for job in self.jobs.values() if job.state.is_waiting and job.is_expired(self.now)]
        expired.sort(key=lambda job: (job.expire_time or 0, job.id))
        return [job for job in [*late, *expired] if not queues or job.queue in queues]

    def leased(self, queues: Sequence[str] = (), *, longer_than: int) -> list[Job]:
        old = [job for job in self._in(JobState.IN_PROGRESS) if (job.claim_time or 0) < self.now - longer_than]
        old.sort(key=lambda job: (job.claim_time or 0, job.id))
        return [job for job in old if not queues or job.queue in queues]

    def purge(self) -> int:
        if self.recovered_at and self.now < self.recovered_at + MINUTE:
            return 0
        jobs = [job.id for job in self.jobs.values() if job.state.is_ended and job.score <= self.now]
        requests = [key for key, each in self._requests.items() if each[2] <= self.now and self._purges_requests]
        self.jobs = {id: job for id, job in self.jobs.items() if id not in jobs}
        self._requests = {key: each for key, each in self._requests.items() if key not in requests}
        for name, settings in list(self.settings.items()):
            entered = max(self._last_queue_times[name], settings.create_time)
            is_used = settings.revision > 0 or any(job.queue == name for job in self.jobs.values())
            if not is_used and entered + FORGOTTEN_AFTER <= self.now:
                del self.settings[name]
                for kept in (self._last_queue_times, self._tallies, self._tallied_at, self._marks):
                    kept.pop(name, None)
        for id, account in list(self.accounts.items()):
            last_heard = max(account.last_beat, account.last_seen)
            if not self.held(id) and last_heard + base.WORKER_FORGOTTEN_AFTER <= self.now:
                del self.accounts[id]
        return len(jobs) + len(requests)

    # --- queues, workers, listings --------------------------------------------------------------------------

    def put_queue(
        self, name: str, changes: QueueChanges, *, revision: int | None = None, create: bool = False
    ) -> base.QueuePut:
        if name not in self.settings and not create:
            return base.QueuePut(Outcome.GONE, self.now, None)
        before = self._make_queue(name)
        if revision not in (None, before.revision):
            return base.QueuePut(Outcome.STALE, self.now, self._record(name))
        if (after := replace(before, **changes)) != before:
            self.settings[name] = replace(after, revision=before.revision + 1, update_time=self.now)
        return base.QueuePut(Outcome.OK, self.now, self._record(name))

    def queues(
        self, names: Sequence[str] = (), *, lately: bool = False, minutes: bool = False
    ) -> list[base.QueueRecord]:
        return [
            self._record(name, has_activity=lately and minutes)
            for name in sorted(self.settings)
            if not names or name in names
        ]

    def _record(self, name: str, *, has_activity: bool = False) -> base.QueueRecord:
        counts = Counter(job.state for job in self.jobs.values() if job.queue == name)
        head = [job.queue_time for job in self._in(JobState.QUEUED, name) if not job.is_expired(self.now)]
        tally = self._tallies[name]
        marks = dict(self._marks[name].values())
        ahead = head[0] if head else None
        record = base.QueueRecord(self.settings[name], dict(counts), ahead, tally)
        if not has_activity:
            return record
        so_far, minutes = (each(now=self.now, tally=tally, marks=marks) for each in (lately, by_minute))
        return replace(record, lately=so_far, minutes=minutes)

    def workers(self, ids: Sequence[str] = (), *, jobs: int = 0) -> list[WorkerRecord]:
        return [self._worker(id, jobs) for id in sorted(self.accounts) if not ids or id in ids]

    def _worker(self, id: str, jobs: int) -> WorkerRecord:
        account = self.accounts[id]
        leases = [(job.claim_time or 0, job.id) for job in self._in(JobState.IN_PROGRESS) if job.worker_id == id]
        held = tuple(job_id for _, job_id in sorted(leases)[:jobs])
        signs = account.register_time, account.last_beat
        return WorkerRecord(account.info, *signs, len(leases), account.directive, account.last_seen, held)

    def held(self, worker_id: str) -> int:
        """The credit that the worker uses."""
        return sum(job.worker_id == worker_id for job in self._in(JobState.IN_PROGRESS))

    def find(self, wanted: JobFilter = _ALL, after: Position | None = None) -> list[Job]:
        found = [job for job in self.jobs.values() if wanted.matches(job)]
        if wanted.user_id:  # newest first
            found.sort(key=lambda job: (job.create_time, job.id), reverse=True)
            return [job for job in found if after is None or (job.create_time, job.id) < (after.score, after.id)]
        found.sort(key=lambda job: _place(wanted.position_of(job)))
        return [job for job in found if after is None or _place(wanted.position_of(job)) > _place(after)]

    def count(self, wanted: JobFilter = _ALL, after: Position | None = None) -> dict[JobState, int]:
        return dict(Counter(job.state for job in self.find(wanted, after if wanted.needs_scan else None)))

    # --- within ---------------------------------------------------------------------------------------------

    def _in(self, state: JobState, queue: str | None = None) -> list[Job]:
        """Of one queue, or of all, in the order of the state's index."""
        found = [job for job in self.jobs.values() if job.state is state and queue in (None, job.queue)]
        return sorted(found, key=lambda job: (job.score, job.id))

    def _put(self, job: Job, *, is_edit: bool = True, is_change: bool = True) -> Job:
        """Stores it with its score, and, but for a mere renewal, as a new version."""
        settings, score = self.settings[job.queue], job.schedule_time
        if is_change:
            revision = job.revision + is_edit
            job = job._replace(version=job.version + 1, revision=revision, update_time=self.now)
        if job.state is JobState.QUEUED:
            if job.queue_time is None:
                self._last_queue_times[job.queue] = next_queue_time(self.now, self._last_queue_times[job.queue])
                job = job._replace(queue_time=self._last_queue_times[job.queue])
            score = rank(job.queue_time or 0, job.priority, settings.ageing)
        elif job.state is JobState.IN_PROGRESS:
            score = _soonest(job.lease_expire_time, job.limit_time)
        elif job.state.is_ended:
            stays = (job.retention, settings.retention, DEFAULT_RETENTION[job.state])
            score = (job.finish_time or 0) + next(stay for stay in stays if stay is not None)
        assert score is not None
        self.jobs[job.id] = job._replace(score=score)
        return self.jobs[job.id]

    def _make_queue(self, name: str) -> Queue:
        """A queue exists from its first job or first setting on."""
        return self.settings.setdefault(name, Queue(name=name, create_time=self.now, update_time=self.now))

    def _tally(self, queue: str, field: str, number: int = 1) -> None:
        tally, last = self._tallies[queue], self._tallied_at[queue]
        for ring in RINGS:
            step, slot = ring.at(self.now)
            if step != last // ring.step:
                self._marks[queue][ring, slot] = (ring, step), tally
        self._tallied_at[queue] = self.now
        self._tallies[queue] = tally._replace(**{field: getattr(tally, field) + number})

    def _account(self, worker_id: str) -> Account:
        """A worker is known from its first claim or beat on."""
        return self.accounts.setdefault(worker_id, Account(WorkerInfo(id=worker_id), self.now, self.now))


def _soonest(*times: int | None) -> int | None:
    return min((time for time in times if time is not None), default=None)


def _place(position: Position) -> tuple[str, int, int, str]:
    return position.queue, list(JobState).index(position.state), position.score, position.id
