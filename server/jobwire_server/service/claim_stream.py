"""One worker's claim stream, and the line it stands in while a queue has nothing for it.

A stream pulls: it claims only when its handler asks for the next event, so a worker that reads slowly is given no more.
While it finds a queue empty it stands in that queue's line; a hint wakes as many streams as there are jobs, first come
first served, and each answer of the store passes the bell on while jobs remain.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from jobwire_server.domain.change import new_tokens, token_digest
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import MINUTE
from jobwire_server.domain.limits import KIB, MIB
from jobwire_server.domain.worker import Directive, WorkerInfo, WorkerRecord
from jobwire_server.service.admission import RECONNECT_AFTER, draining
from jobwire_server.service.claim_events import (
    Assigned,
    Assignment,
    Cancel,
    ClaimSpec,
    Draining,
    Event,
    KeepAlive,
    Lost,
    superseded,
)
from jobwire_server.service.coalescer import Coalescer, waits
from jobwire_server.service.deliveries import Deliveries
from jobwire_server.store.base import Claimed, ClaimOutcome, ClaimRequest, Store, StoreFull, StoreUnavailable
from jobwire_server.telemetry.metrics import Histogram, Registry

KEEPALIVE: Final = 12.0
"""Seconds without another event after which a stream hears from us; the contract says at most 15."""
ASSIGNED_AT_ONCE: Final = 250
"""Jobs in one claim of one stream, so that the others in line get their share."""
BYTES_AT_ONCE: Final = 3 * MIB
"""About what the jobs of one claim of one stream weigh: one message, whatever a job weighs. Each stream that does not
read would hold a hundred payloads in the server's memory otherwise."""
UNSEEN_SIZE: Final = 256 * KIB
"""Bytes that a job is taken to weigh in a queue of which none was seen yet: what a payload may weigh by default."""
REQUESTS_AT_ONCE: Final = 50
"""Streams served by one store call."""
STEP_ASIDE_AFTER: Final = 0.05
"""Seconds that a message may take to be written before its stream leaves the lines: a bell would be lost on it."""
ACKNOWLEDGE_MOMENT: Final = 1.0
"""Seconds a draining stream stays for the acknowledgments of what it has just delivered."""

log = logging.getLogger("jobwire.claims")


class Lines:
    """The lines of all queues that someone waits for."""

    def __init__(self, store: Store, metrics: Registry) -> None:
        self._store = store
        self._waits = waits(metrics, "claim")
        self._lines: WeakValueDictionary[str, Line] = WeakValueDictionary()
        """Each as long as there is a stream that may stand in it."""

    def __getitem__(self, queue: str) -> Line:
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = Line(self._store, queue, self._waits)
        return line

    def ring(self, queue: str, jobs: int) -> None:
        """There may be that many jobs in a queue."""
        if (line := self._lines.get(queue)) is not None:
            line.ring(jobs)

    def waited_for(self) -> list[str]:
        """The queues in whose lines somebody stands."""
        return [queue for queue, line in self._lines.items() if not line.is_empty]


class Line:
    """The streams that wait for jobs of one queue, first come first served, and the one way to claim from it."""

    def __init__(self, store: Store, queue: str, waits: Histogram) -> None:
        self._store = store
        self._queue = queue
        self._waiting: dict[ClaimStream, None] = {}
        self._claims = Coalescer(self._run, batch=REQUESTS_AT_ONCE, waits=waits)
        self._job_size = float(UNSEEN_SIZE)
        """Bytes that a job of this queue has weighed lately: up at once, down slowly."""

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def enter(self, stream: ClaimStream) -> None:
        self._waiting.setdefault(stream)

    def leave(self, stream: ClaimStream) -> None:
        self._waiting.pop(stream, None)

    def ring(self, jobs: int) -> None:
        """Wakes streams until there is room for so many jobs; those woken leave the line."""
        share = -(-jobs // max(len(self._waiting), 1))
        while jobs > 0 and self._waiting:
            stream = next(iter(self._waiting))
            del self._waiting[stream]
            stream.ring(self._queue, share)
            jobs -= min(max(stream.room, 1), share)

    @property
    def jobs_at_once(self) -> int:
        """Jobs that one claim should ask for at most."""
        return max(1, min(ASSIGNED_AT_ONCE, int(BYTES_AT_ONCE / self._job_size)))

    async def claim(self, request: ClaimRequest) -> tuple[int, Claimed, bool]:
        """The store's clock, what was claimed, and whether more can be."""
        [answer] = await self._claims.submit([request])
        return answer

    async def _run(self, requests: Sequence[ClaimRequest]) -> list[tuple[int, Claimed, bool]]:
        claims = await self._store.claim(self._queue, requests)
        sizes = [len(job.submission) for claimed in claims.claimed for job in claimed.jobs]
        if sizes:
            self._job_size = max(sum(sizes) / len(sizes), 0.8 * self._job_size, 1.0)
        # Whoever had credit to spare and got less than it wished for has seen the end of what can be claimed, whatever
        # remains: expired jobs that the sweep has not reached yet. Ringing on would only spin until it has.
        has_more = not any(
            claimed.outcome is ClaimOutcome.OK
            and len(claimed.jobs) < len(request.tokens)
            and claimed.held < request.max_in_flight
            for request, claimed in zip(requests, claims.claimed, strict=True)
        )
        if has_more:
            # Those who are about to ask need no bell.
            self.ring(claims.remaining - sum(len(request.tokens) for request in self._claims.waiting()))
        return [(claims.now, claimed, claims.remaining > 0) for claimed in claims.claimed]


class ClaimStream:
    """One worker's stream. Its handler calls `next` until it answers None or raises, and `close` in any case."""

    def __init__(
        self,
        spec: ClaimSpec,
        session: int,
        lines: Lines,
        deliveries: Deliveries,
        on_closed: Callable[[ClaimStream], None],
    ) -> None:
        self.session = session
        self.worker = WorkerInfo(
            id=spec.worker.id,
            session=session,
            host=spec.worker.host,
            pid=spec.worker.pid,
            runtime=spec.worker.runtime,
            version=spec.worker.version,
            labels=spec.worker.labels,
            queues=spec.queues,
            max_in_flight=spec.max_in_flight,
        )
        self._spec = spec
        self._lines = {queue: lines[queue] for queue in spec.queues}
        self._deliveries = deliveries
        self._on_closed = on_closed
        self._held = 0
        self._freed = 0
        """Leases freed since the claim under way was asked for: its answer may be older than they are."""
        self._handed_out = 0
        self._rung: dict[str, int] = dict.fromkeys(spec.queues, ASSIGNED_AT_ONCE)
        self._notices: list[Event] = []  # nearly always empty, and then a tenth of a deque
        self._unacknowledged = deliveries.of_stream(self._rung_by_acknowledgment)
        self._claim: asyncio.Task[Assigned | None] | None = None
        self._end: JobwireError | None = None
        self._drain_told = False
        self._is_draining = False
        """The server is about to stop."""
        self._is_quiet = False
        """An operator has drained the worker."""
        self._is_outside = False
        """It stands in no line: it has no credit left, or must beat first."""
        self._bell = asyncio.Event()
        self._writing: asyncio.TimerHandle | None = None
        """From an event to the next call of `next`."""
        self._has_stepped_aside = False
        self._last_event = self._last_job = time.monotonic()

    @property
    def worker_id(self) -> str:
        return self.worker.id

    @property
    def room(self) -> int:
        """Jobs it may be given now, by what this server knows; the store has the last word."""
        if self._is_quiet:
            return 0
        room = max(self._spec.max_in_flight - self._held, 0)
        return min(room, self._spec.max_jobs - self._handed_out) if self._spec.max_jobs else room

    async def next(self) -> Event | None:
        """The next thing to tell the worker; None at the planned end of the stream. Raises why it ended otherwise."""
        self._come_back()
        while True:
            if self._end is not None:
                raise self._end
            if self._notices:
                return self._told(self._notices.pop(0))
            if self._is_draining:
                return await self._say_goodbye()
            if self._spec.max_jobs and self._handed_out >= self._spec.max_jobs:
                return None
            if self._rung and self.room:
                if (assigned := await self._claim_once()) is not None:
                    return self._told(assigned)
                continue
            if (event := await self._wait()) is not None:
                return self._told(event)
            if self._has_waited_enough():
                return None

    async def close(self, *, peer_gone: bool) -> None:
        """Leaves the lines. Hands back at once what is on its way, and, when the peer has gone, what it was given and
        did not acknowledge; when the server ended the stream, deliveries keep their deadline."""
        if self._writing is not None:
            self._writing.cancel()
        self._leave_lines()
        if self._claim is not None:
            self._claim.add_done_callback(self._hand_back_claim)
        deliveries = self._unacknowledged.take_all()
        if peer_gone and deliveries:
            self._deliveries.hand_back(deliveries)
        self._on_closed(self)

    def ring(self, queue: str, share: int) -> None:
        """There may be jobs in that queue, and so many of them are its share."""
        self._rung[queue] = share
        self._bell.set()

    def freed(self, leases: int) -> None:
        """The worker holds fewer leases now."""
        had_room = self.room > 0
        self._freed += leases
        self._held = max(self._held - leases, 0)
        if not had_room and self.room:
            self._line_up()

    def look_everywhere(self) -> None:
        """Visits all its queues again, and lets the store say how much room there is."""
        if self._held >= self._spec.max_in_flight:
            self._held = self._spec.max_in_flight - 1
        if self._is_quiet:
            return
        self._rung = dict.fromkeys(self._spec.queues, ASSIGNED_AT_ONCE)
        self._is_outside = False
        self._bell.set()

    def _line_up(self) -> None:
        """Visits the queues that nobody waits for; whoever waits for one has found it empty."""
        self._is_outside = False
        for queue, line in self._lines.items():
            if line.is_empty:
                self._rung[queue] = ASSIGNED_AT_ONCE
            else:
                line.enter(self)
        self._bell.set()

    def recheck(self, worker: WorkerRecord) -> None:
        """What the store has of its worker; the hint that would have said so may be lost."""
        self.direct(worker.directive)
        if worker.info.session > self.session:
            self.end(superseded(self.worker.id))
        elif self._is_outside and worker.held < self._spec.max_in_flight:
            self.look_everywhere()

    def direct(self, directive: Directive) -> None:
        """What an operator wants of its worker. Told when it changes; the claims are refused by the store."""
        is_quiet = directive is not Directive.NONE
        if is_quiet is self._is_quiet:
            return
        self._is_quiet = is_quiet
        if is_quiet:
            self._leave_lines()
            self.notify(Draining(None))
        else:
            self.look_everywhere()

    def notify(self, event: Cancel | Lost | Draining) -> None:
        self._notices.append(event)
        self._bell.set()

    def drain(self) -> None:
        self._is_draining = True
        self._bell.set()

    def end(self, error: JobwireError) -> None:
        """Ends the stream from the server's side, for good."""
        self._end = error
        self._bell.set()

    def _rung_by_acknowledgment(self) -> None:
        if self._is_draining:
            self._bell.set()

    def _told(self, event: Event) -> Event:
        self._last_event = time.monotonic()
        self._writing = asyncio.get_running_loop().call_later(STEP_ASIDE_AFTER, self._step_aside)
        return event

    def _step_aside(self) -> None:
        """The worker does not read."""
        self._leave_lines()
        self._has_stepped_aside = True

    def _come_back(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self._has_stepped_aside:
            self._has_stepped_aside = False
            if self.room:
                self.look_everywhere()

    async def _claim_once(self) -> Assigned | None:
        """Visits the first queue, in the order the worker gave, that may have jobs."""
        queue = next(queue for queue in self._spec.queues if queue in self._rung)
        # A task of its own: whoever awaits us may be cancelled, the store's answer must still be taken in.
        self._claim = asyncio.create_task(self._claim_from(queue))
        assigned = await asyncio.shield(self._claim)
        self._claim = None
        return assigned

    async def _claim_from(self, queue: str) -> Assigned | None:
        share = self._rung.pop(queue, ASSIGNED_AT_ONCE)
        line = self._lines[queue]
        tokens = new_tokens(min(self.room, share, line.jobs_at_once))
        by_digest = {token_digest(token): token for token in tokens}
        # Standing in line before the answer comes: a bell that rings meanwhile is not missed.
        self._freed = 0
        line.enter(self)
        try:
            now, claimed, is_more_left = await line.claim(
                ClaimRequest(
                    worker_id=self.worker.id,
                    session=self.session,
                    max_in_flight=self._spec.max_in_flight,
                    tokens=list(by_digest),
                    lease_duration=self._spec.lease_duration,
                    delivery_timeout=self._spec.delivery_timeout,
                )
            )
        except (StoreUnavailable, StoreFull) as error:
            log.warning("worker %s waits, the store cannot claim: %s", self.worker.id, error)
            return None
        self._held = max(claimed.held - self._freed, 0)  # too low costs a call, too high a second of waiting
        self._heed(claimed.outcome)
        if not claimed.jobs:
            return None
        assignments = [
            Assignment(job, by_digest[job.token], job.token) for job in claimed.jobs if job.token is not None
        ]
        if self._spec.delivery_timeout:
            self._unacknowledged.add(assignments, now=now, deadline=now + self._spec.delivery_timeout)
        self._handed_out += len(assignments)
        self._last_job = time.monotonic()
        if not self.room:
            self._leave_lines()
        elif is_more_left and len(assignments) == len(tokens):
            self._rung.setdefault(queue, share)  # where it was rung meanwhile, by this answer too, that share is newer
        return Assigned(now, assignments)

    def _heed(self, outcome: ClaimOutcome) -> None:
        match outcome:
            case ClaimOutcome.OK:
                if not self.room:
                    self._leave_lines()
            case ClaimOutcome.SUPERSEDED:
                self.end(superseded(self.worker.id))
            case ClaimOutcome.QUIET:
                self.direct(Directive.QUIET)
            case ClaimOutcome.SILENT:
                # In a line it would only swallow the bell. It waits outside, for its worker to beat.
                self._leave_lines()
            case ClaimOutcome.NOT_ACKNOWLEDGING:
                self.end(
                    JobwireError(
                        Reason.NOT_ACKNOWLEDGING,
                        f"the last deliveries to worker {self.worker.id!r} all came back unacknowledged;"
                        " answer each jobs message with one heartbeat",
                        retry_after=MINUTE,
                    )
                )

    def _leave_lines(self) -> None:
        """Steps out of every line; a bell that had been rung for us rings for the next."""
        self._is_outside = True
        for queue in self._spec.queues:
            line = self._lines[queue]
            line.leave(self)
            if queue in self._rung:
                line.ring(1)
        self._rung.clear()

    def _hand_back_claim(self, claim: asyncio.Task[Assigned | None]) -> None:
        """The stream had ended before this claim was answered: what it took goes back, its worker never saw it."""
        if not claim.cancelled() and claim.exception() is None and (deliveries := self._unacknowledged.take_all()):
            self._deliveries.hand_back(deliveries)
        self._leave_lines()

    async def _say_goodbye(self) -> Event:
        """Drain, then a moment for acknowledgments, then the end."""
        if not self._drain_told:
            self._drain_told = True
            self._leave_lines()
            return self._told(Draining(RECONNECT_AFTER))
        try:
            async with asyncio.timeout(ACKNOWLEDGE_MOMENT):
                while self._unacknowledged:
                    self._bell.clear()
                    await self._bell.wait()
        except TimeoutError:
            log.info("worker %s has not acknowledged %d jobs", self.worker.id, len(self._unacknowledged))
        raise draining()

    async def _wait(self) -> KeepAlive | None:
        """Until something rings, or a keepalive is due, or the worker has waited long enough."""
        due = self._last_event + KEEPALIVE
        if self._spec.wait_timeout is not None:
            due = min(due, self._last_job + self._spec.wait_timeout / 1e6)
        self._bell.clear()
        try:
            async with asyncio.timeout(max(due - time.monotonic(), 0)):
                await self._bell.wait()
        except TimeoutError:
            if time.monotonic() >= self._last_event + KEEPALIVE:
                credit = 0 if self._is_outside else max(self._spec.max_in_flight - self._held, 0)
                return KeepAlive(time.time_ns() // 1000, self._held, credit)
        return None

    def _has_waited_enough(self) -> bool:
        timeout = self._spec.wait_timeout
        return timeout is not None and time.monotonic() >= self._last_job + timeout / 1e6
