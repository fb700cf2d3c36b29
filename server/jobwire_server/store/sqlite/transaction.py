"""What all calls of one transaction share: the time, the queues and workers they touch, the counts, the hints.

It lives as long as the transaction and nothing of it survives a rollback, so that Python never believes what the file
does not say. What many calls change together (counts, a queue's row, a worker's account) is written once, by `flush`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import apsw

from jobwire_server.domain.activity import ENDED_BY, NOTHING, RINGS, Event, Tally
from jobwire_server.domain.job import Job, JobState
from jobwire_server.domain.queue import Queue, next_queue_time, rank
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import Hints, WorkerNotice
from jobwire_server.store.changes import Born, Changes, Gone
from jobwire_server.store.sqlite.codec import encode_texts

_LAST_NUMBER: Final = "SELECT max(number) FROM job"

_COUNT: Final = "SELECT n FROM queue_count WHERE queue = ? AND state = ?"

_ADD_COUNT: Final = (
    "INSERT INTO queue_count (queue, state, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
)

_QUEUE_COLUMNS: Final = (
    "paused, ageing, retention, max_in_flight, create_time, update_time, revision, last_queue_time, name, tallied_at, "
    + ", ".join(Tally._fields)
)

_QUEUE: Final = f"SELECT {_QUEUE_COLUMNS} FROM queue WHERE name = ?"

_WRITE_QUEUE: Final = (
    f"INSERT OR REPLACE INTO queue ({_QUEUE_COLUMNS}) VALUES ({','.join('?' * (10 + len(Tally._fields)))})"
)

_WRITE_MARK: Final = f"INSERT OR REPLACE INTO mark VALUES ({','.join('?' * (4 + len(Tally._fields)))})"

_WORKER: Final = """
SELECT session, register_time, last_beat, directive, returns, returned_at, returned_claim, silent, held
FROM worker WHERE id = ?
"""

# What a worker leaves unsaid stays as it said it before: heartbeats need not repeat it all.
_WRITE_WORKER: Final = """
INSERT INTO worker
    (id, session, register_time, last_beat, directive, returns, returned_at, returned_claim, silent, held, host, pid,
        runtime, version, labels, queues, max_in_flight)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    session = excluded.session,
    last_beat = excluded.last_beat,
    directive = excluded.directive,
    returns = excluded.returns,
    returned_at = excluded.returned_at,
    returned_claim = excluded.returned_claim,
    silent = excluded.silent,
    held = excluded.held,
    host = iif(excluded.host = '', host, excluded.host),
    pid = iif(excluded.pid = 0, pid, excluded.pid),
    runtime = iif(excluded.runtime = '', runtime, excluded.runtime),
    version = iif(excluded.version = '', version, excluded.version),
    labels = iif(excluded.labels = '', labels, excluded.labels),
    queues = iif(excluded.queues = '', queues, excluded.queues),
    max_in_flight = iif(excluded.max_in_flight = 0, max_in_flight, excluded.max_in_flight)
"""


@dataclass(slots=True)
class QueueRow:
    """A queue as this transaction has it; one that does not exist has the defaults."""

    settings: Queue
    last_queue_time: int = 0
    exists: bool = False
    changed: bool = False
    tallied_at: int = 0
    tally: Tally = NOTHING
    """As it was read."""
    events: Counter[str] = field(default_factory=Counter)
    """What has been added to it since, by the names of its fields."""


@dataclass(slots=True)
class WorkerRow:
    """A worker's account as this transaction has it."""

    info: WorkerInfo
    session: int = 0
    register_time: int = 0
    last_beat: int = 0
    directive: Directive = Directive.NONE
    returns: int = 0
    returned_at: int = 0
    returned_claim: int = 0
    silent: bool = False
    held: int = 0
    """Leases under its name: the credit used."""
    changed: bool = False


class Transaction:
    """A connection between BEGIN and COMMIT, with what its calls share."""

    def __init__(self, connection: apsw.Connection, *, now: int, recovered_at: int, is_watched: bool) -> None:
        self.execute: Final = connection.execute
        self.executemany: Final = connection.executemany
        self.connection: Final = connection
        self.now: Final = now
        """One time for all its calls: they become visible together."""
        self.recovered_at = recovered_at
        self.is_watched: Final = is_watched
        """Somebody wants to know which jobs changed."""
        self.expired_seen = False
        self._number: int | None = None
        self._queues: dict[str, QueueRow] = {}
        self._counts: dict[tuple[str, JobState], int] = {}
        self._added: Counter[tuple[str, JobState]] = Counter()
        self._workers: dict[str, WorkerRow] = {}
        self._queued: Counter[str] = Counter()
        self._freed: Counter[str] = Counter()
        self._heard: list[str] = []
        self._directives: dict[str, Directive] = {}
        self._cancels: list[WorkerNotice] = []
        self._lost: list[WorkerNotice] = []
        self._changed: list[str] = []
        self._born: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._rewritten: set[str] = set()
        self._gone: list[Gone] = []
        self._last: list[Job] = []

    # --- jobs -----------------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """For the next new job."""
        if self._number is None:
            self._number = self.execute(_LAST_NUMBER).get or 0
        self._number += 1
        return self._number

    # --- queues ---------------------------------------------------------------------------------------------

    def queue(self, name: str) -> QueueRow:
        row = self._queues.get(name)
        if row is None:
            found = self.execute(_QUEUE, (name,)).fetchone()
            row = QueueRow(Queue(name=name)) if found is None else _queue_row(found)
            self._queues[name] = row
        return row

    def enter(self, queue: str, *, queue_time: int | None, priority: int) -> tuple[int, int]:
        """The (queue_time, rank) with which a job enters its queue; it keeps a queue_time that it has."""
        row = self.add_queue(queue)
        if queue_time is None:
            queue_time = row.last_queue_time = next_queue_time(self.now, row.last_queue_time)
            row.changed = True
        return queue_time, rank(queue_time, priority, row.settings.ageing)

    def count(self, queue: str, state: JobState) -> int:
        """Jobs of that queue in that state, this transaction's changes included."""
        key = (queue, state)
        stored = self._counts.get(key)
        if stored is None:
            found = self.execute(_COUNT, key).fetchone()
            stored = self._counts[key] = 0 if found is None else found[0]
        return stored + self._added[key]

    def counted(self, queue: str, left: JobState | None, entered: JobState | None, number: int = 1) -> None:
        """That many jobs went from one state to another; None = from or to nowhere."""
        if left is entered:
            return
        if left is not None:
            self._added[queue, left] -= number
        if entered is not None:
            self._added[queue, entered] += number
            if entered in ENDED_BY:
                self.happened(queue, ENDED_BY[entered], number)
        if entered is JobState.QUEUED:
            self._queued[queue] += number
        elif left is JobState.IN_PROGRESS and self.queue(queue).settings.max_in_flight is not None:
            # Under a ceiling it made room for any worker, not only for the one that had it.
            self.tell_claimable(queue, min(number, self.claimable(queue)))

    def claimable(self, queue: str) -> int:
        """How many more of its jobs may be IN_PROGRESS, as far as there are some."""
        settings = self.queue(queue).settings
        if settings.paused:
            return 0
        waiting = self.count(queue, JobState.QUEUED)
        if settings.max_in_flight is None:
            return waiting
        return max(0, min(waiting, settings.max_in_flight - self.count(queue, JobState.IN_PROGRESS)))

    def happened(self, queue: str, event: Event, number: int = 1) -> None:
        """That many of its jobs met with it."""
        if number:
            row = self.add_queue(queue)
            row.events[event] += number
            row.changed = True

    def ran(self, queue: str, run_time: int) -> None:
        """Attempts that completed took so long, all together."""
        self.queue(queue).events["run_time"] += run_time

    def add_queue(self, name: str) -> QueueRow:
        """A queue exists from its first job or first setting on."""
        row = self.queue(name)
        if not row.exists:
            row.settings = replace(row.settings, create_time=self.now, update_time=self.now)
            row.exists = row.changed = True
        return row

    # --- workers --------------------------------------------------------------------------------------------

    def worker(self, id: str) -> WorkerRow:
        row = self._workers.get(id)
        if row is None:
            found = self.execute(_WORKER, (id,)).fetchone()
            info = WorkerInfo(id=id)
            if found is None:
                row = WorkerRow(info, register_time=self.now, last_beat=self.now, changed=True)
            else:
                session, register_time, last_beat, directive, returns, returned_at, returned_claim, silent, held = found
                row = WorkerRow(
                    info,
                    session,
                    register_time,
                    last_beat,
                    Directive(directive),
                    returns,
                    returned_at,
                    returned_claim,
                    bool(silent),
                    held,
                )
            self._workers[id] = row
        return row

    def held(self, worker_id: str) -> int:
        """Leases under its name, this transaction's changes included."""
        return self.worker(worker_id).held

    def leased(self, worker_id: str, number: int) -> None:
        """That many jobs were leased to it."""
        if number:
            row = self.worker(worker_id)
            row.held += number
            row.changed = True

    def freed(self, worker_id: str, leases: int = 1) -> None:
        """So many of its leases ended."""
        self._freed[worker_id] += leases
        self.leased(worker_id, -leases)

    def returned(self, worker_id: str, *, claim_time: int, ran_out: bool) -> None:
        """A delivery to it came back unacknowledged, by its deadline (`ran_out`) or before.

        What one claim handed out counts once, and what was under way while the store was away does not count: a healthy
        worker must not be refused because a server died with a hundred jobs on their way to it. Nor is one silent that
        has been heard since: it has opened a stream anew, and may have nothing to beat for.
        """
        if claim_time <= self.recovered_at:
            return
        row = self.worker(worker_id)
        if row.returned_claim != claim_time:
            row.returns += 1
            row.returned_claim = claim_time
        row.returned_at = self.now
        row.silent = row.silent or (ran_out and claim_time >= row.last_beat)
        row.changed = True

    def acknowledged(self, worker_id: str) -> None:
        """It renewed or settled a lease: deliveries reach it."""
        row = self.worker(worker_id)
        if row.returns:
            row.returns = 0
            row.changed = True
        self.end_silence(row)

    def end_silence(self, row: WorkerRow) -> None:
        if row.silent:
            row.silent = False
            row.changed = True
            self._heard.append(row.info.id)

    # --- hints ----------------------------------------------------------------------------------------------

    def tell_claimable(self, queue: str, number: int) -> None:
        """That many more of its jobs may be claimed than before."""
        if number > 0:
            self._queued[queue] += number

    def tell_cancel(self, worker_id: str, job_id: str, fence: int, reason: str) -> None:
        self._cancels.append(WorkerNotice(worker_id, job_id, fence, reason))

    def tell_directive(self, worker_id: str, directive: Directive) -> None:
        self._directives[worker_id] = directive

    def tell_lost(self, worker_id: str, job_id: str, fence: int) -> None:
        self._lost.append(WorkerNotice(worker_id, job_id, fence))

    def take_queued(self) -> Hints | None:
        """Which queues have more to claim, which may be told before the commit; `hints` tells it no more."""
        if not self._queued:
            return None
        queued, self._queued = dict(self._queued), Counter()
        return Hints(queued=queued)

    def hints(self) -> Hints | None:
        """What this transaction means to those who wait, once it is committed; None when nothing."""
        told = (self._queued, self._freed, self._heard, self._directives, self._cancels, self._lost)
        if not any(told) and not self.expired_seen:
            return None
        return Hints(
            queued=dict(self._queued),
            freed=dict(self._freed),
            heard=tuple(self._heard),
            directives=dict(self._directives),
            cancels=tuple(self._cancels),
            lost=tuple(self._lost),
            expired_seen=self.expired_seen,
        )

    # --- changes, for those who watch -----------------------------------------------------------------------

    def tell_changed(self, job_ids: Iterable[str], *, rewritten: Iterable[str] = ()) -> None:
        """The versions of these jobs have risen."""
        if self.is_watched:
            self._changed.extend(job_ids)
            self._rewritten.update(rewritten)

    def tell_born(self, jobs: Iterable[tuple[str, str, str]]) -> None:
        """These are new: id, queue, user."""
        if self.is_watched:
            for job_id, queue, user_id in jobs:
                self._changed.append(job_id)
                self._born[queue, user_id].append(job_id)

    def tell_gone(self, gone: Iterable[Gone], *, last: Job | None = None) -> None:
        """These were removed; `last` = the one of them that went at its end, as it ended."""
        if self.is_watched:
            self._gone.extend(gone)
            if last is not None:
                self._last.append(last)

    def changes(self) -> Changes | None:
        """Which jobs changed, once it is committed; None when none did, or nobody watches."""
        if not self._changed and not self._gone:
            return None
        born = [Born(queue, user_id, ids) for (queue, user_id), ids in self._born.items()]
        return Changes(self._changed, born, self._rewritten, self._gone, self._last)

    # --- the end --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes what the calls changed together, and forgets it: whoever asks again reads it anew.

        The last thing before the commit, and the first thing in a verb that looks into these tables itself.
        """
        counts = [(queue, state, n) for (queue, state), n in self._added.items() if n]
        if counts:
            self.executemany(_ADD_COUNT, counts)
        for queue_row in self._queues.values():
            if queue_row.changed:
                self._write_queue(queue_row)
        for worker in self._workers.values():
            if worker.changed:
                self.execute(_WRITE_WORKER, _worker_columns(worker))
        for read in (self._added, self._counts, self._queues, self._workers):
            read.clear()

    def _write_queue(self, row: QueueRow) -> None:
        if row.events:
            for ring in RINGS:
                number, slot = ring.at(self.now)
                if number != row.tallied_at // ring.step:
                    self.execute(_WRITE_MARK, (row.settings.name, ring.step, slot, number, *row.tally))
            row.tallied_at = self.now
            row.tally = Tally(*(counted + row.events[field] for field, counted in row.tally._asdict().items()))
        self.execute(_WRITE_QUEUE, _queue_columns(row))


def _queue_row(found: Any) -> QueueRow:
    paused, ageing, retention, max_in_flight, create_time, update_time, revision, *others = found
    last_queue_time, name, tallied_at, *tally = others
    settings = Queue(
        name=name,
        paused=bool(paused),
        ageing=ageing,
        retention=retention,
        max_in_flight=max_in_flight,
        create_time=create_time,
        update_time=update_time,
        revision=revision,
    )
    return QueueRow(settings, last_queue_time, exists=True, tallied_at=tallied_at, tally=Tally._make(tally))


def _queue_columns(row: QueueRow) -> tuple[str | int | None, ...]:
    settings = row.settings
    return (
        int(settings.paused),
        settings.ageing,
        settings.retention,
        settings.max_in_flight,
        settings.create_time,
        settings.update_time,
        settings.revision,
        row.last_queue_time,
        settings.name,
        row.tallied_at,
        *row.tally,
    )


def _worker_columns(row: WorkerRow) -> tuple[str | int, ...]:
    info = row.info
    return (
        info.id,
        row.session,
        row.register_time,
        row.last_beat,
        row.directive,
        row.returns,
        row.returned_at,
        row.returned_claim,
        int(row.silent),
        row.held,
        info.host,
        info.pid,
        info.runtime,
        info.version,
        encode_texts(info.labels),
        encode_texts(info.queues),
        info.max_in_flight,
    )
