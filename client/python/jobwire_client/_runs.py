"""The jobs a worker holds, from their assignment to the answer to their settlement."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Final, Protocol

from jobwire.v1.job_pb2 import Job, JobError
from jobwire.v1.job_service_pb2 import (
    Assignment,
    CompleteJob,
    FailJob,
    ReleaseJob,
    ReportProgress,
    UpdateJobRequest,
    UpdateJobResponse,
)
from jobwire_client._convert import Body, clean_text, to_duration, to_payload
from jobwire_client._settler import Settler
from jobwire_client.context import Handler, JobContext, PermanentError, Release, Retry, Stopped
from jobwire_client.errors import AlreadySettled, JobNotFound, JobwireError, LeaseLost

UNKNOWN_TYPE_DELAY: Final = 30.0
"""Seconds for which a job without a handler here is left to other workers."""
STOP_TIMEOUT: Final = 5.0
"""Seconds a stopped handler has to end, and the settlements after it to be answered, when the worker shuts down."""

log = logging.getLogger("jobwire.worker")


class Leases(Protocol):
    """What keeps leases alive: the heartbeat."""

    def hold(self, leases: list[tuple[str, str]]) -> None:
        """Beats for these (token, job id)."""

    def drop(self, token: str) -> None:
        """Beats for it no more."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How one run ended, as the server answered."""

    job: Job
    """As it was claimed."""
    fence: int
    verb: str
    """`complete`, `fail` or `release`."""
    answer: UpdateJobResponse | JobwireError


class _Phase(Enum):
    WAITING = auto()
    """For a free slot, or for the end of an older run of the same job."""
    RUNNING = auto()
    SETTLING = auto()
    ENDED = auto()


class _Run:
    """One fence of one job."""

    def __init__(self, assignment: Assignment, context: JobContext, older: _Run | None) -> None:
        self.assignment = assignment
        self.context = context
        self.older = older
        self.phase = _Phase.WAITING
        self.handler: asyncio.Task[Body] | None = None
        self.is_acknowledged = False
        self.is_lost = False
        self.is_given_back = False

    @property
    def job(self) -> Job:
        return self.assignment.job

    @property
    def may_start(self) -> bool:
        return self.older is None or self.older.phase is not _Phase.RUNNING

    def stop(self, *, cancel_reason: str | None = None) -> None:
        """Once: a second cancellation would hit the handler while it tidies up."""
        if self.context.stopped:
            return
        self.context.stop(cancel_reason=cancel_reason)
        if self.handler is not None:
            self.handler.cancel()


class Runs:
    """At most `concurrency` handlers at a time, never two of one job, and for each run one settlement or none."""

    def __init__(
        self,
        *,
        handlers: Mapping[str, Handler],
        concurrency: int,
        settler: Settler,
        leases: Leases,
        on_settled: Callable[[Settled], None] | None,
    ) -> None:
        self._handlers = handlers
        self._free = concurrency
        self._settler = settler
        self._leases = leases
        self._on_settled = on_settled
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="jobwire-handler")
        self._newest: dict[str, _Run] = {}
        self._by_token: dict[str, _Run] = {}
        self._waiting: deque[_Run] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._acknowledged = asyncio.Event()
        self._unknown_types: set[str] = set()
        self._is_draining = False
        self._is_abandoned = False

    @property
    def held(self) -> int:
        """Jobs whose settlement is not answered yet."""
        return len(self._by_token)

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Takes jobs over. They are acknowledged first, whatever comes of them then."""
        runs: list[_Run] = []
        for assignment in assignments:
            older = self._newest.get(assignment.job.id)
            if older is not None and older.assignment.fence >= assignment.fence:
                log.warning("job %s came with an old fence, ignored", assignment.job.id)
                continue
            if older is not None and older.phase is _Phase.WAITING:
                older_still = older.older
                self._lose(older)
                older = older_still
            elif older is not None and older.phase is _Phase.RUNNING:
                log.warning("job %s was claimed anew while it runs here, stopping the older run", assignment.job.id)
                self._lose(older)
            run = _Run(assignment, JobContext(assignment, self._reporter(assignment)), older)
            self._newest[run.job.id] = self._by_token[assignment.token] = run
            runs.append(run)
        self._leases.hold([(run.assignment.token, run.job.id) for run in runs])
        for run in runs:
            if self._is_draining:
                self._settle_unstarted(run, release())
            elif run.job.type not in self._handlers:
                self._warn_unknown(run.job)
                self._settle_unstarted(run, release(UNKNOWN_TYPE_DELAY))
            else:
                self._waiting.append(run)
        self._start()

    def cancel(self, job_id: str, fence: int, reason: str) -> None:
        """Stops that run, so that its settlement makes the job CANCELED."""
        run = self._newest.get(job_id)
        if run is not None and run.assignment.fence == fence:
            self._cancel(run, reason)

    def lose(self, job_id: str, fence: int) -> None:
        """Stops that run; nothing is reported of it."""
        run = self._newest.get(job_id)
        if run is not None and run.assignment.fence == fence:
            self._lose(run)

    def beaten(self, token: str, *, is_lost: bool, cancel_reason: str | None) -> None:
        """What a heartbeat found of a lease."""
        run = self._by_token.get(token)
        if run is None:
            return
        run.is_acknowledged = True
        self._acknowledged.set()
        if is_lost:
            self._lose(run)
        elif cancel_reason is not None:
            self._cancel(run, cancel_reason)

    async def acknowledged(self, *, timeout: float) -> None:
        """Returns when no delivery waits for its first beat, or after `timeout` seconds. Starts nothing more."""
        self._is_draining = True
        while self._waiting:
            self._settle_unstarted(self._waiting.popleft(), release())
        try:
            async with asyncio.timeout(timeout):
                while not all(run.is_acknowledged for run in self._by_token.values()):
                    self._acknowledged.clear()
                    await self._acknowledged.wait()
        except TimeoutError:
            log.warning("some deliveries are not acknowledged: the server will hand them out again")

    async def drain(self, grace: float) -> None:
        """Lets handlers finish for `grace` seconds, stops and releases the rest; returns when all is settled."""
        self._is_draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for run in self._by_token.values():
            if run.phase is _Phase.RUNNING:
                run.is_given_back = True
                run.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT)
        for run in self._by_token.values():
            # Not released: another worker would run it beside this one.
            state = "is still running" if run.phase is _Phase.RUNNING else "is not settled"
            log.error("job %s %s at the end of the drain, its lease will run out", run.job.id, state)
        self._is_abandoned = True
        for run in self._by_token.values():
            if run.handler is not None:
                run.handler.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)

    # --- from assignment to settlement

    def _start(self) -> None:
        """Starts what may start. Called whenever a slot or an older run may have become free."""
        held_up: list[_Run] = []
        while self._waiting and self._free:
            run = self._waiting.popleft()
            if run.may_start:
                self._free -= 1
                run.phase = _Phase.RUNNING
                run.older = None
                self._spawn(self._execute(run))
            else:
                held_up.append(run)
        self._waiting.extendleft(reversed(held_up))

    async def _execute(self, run: _Run) -> None:
        try:
            change = await self._outcome(run)
        finally:
            self._free += 1
            run.phase = _Phase.SETTLING
            self._start()
        if run.is_lost:
            log.info("job %s was taken from this worker, nothing is reported", run.job.id)
            self._end(run)
        else:
            await self._settle(run, change)

    async def _outcome(self, run: _Run) -> UpdateJobRequest:
        """Runs the handler to its end, however that comes, and says what to report."""
        run.handler = asyncio.create_task(self._handle(run))
        await asyncio.wait([run.handler])
        if run.handler.cancelled():
            # By us, unless the handler cancelled itself.
            return release() if run.context.stopped else failure(code="CancelledError", message="cancelled itself")
        error = run.handler.exception()
        if error is None:
            try:
                return UpdateJobRequest(complete=CompleteJob(result=to_payload(run.handler.result())))
            except (TypeError, ValueError) as not_a_result:
                error = not_a_result
        if isinstance(error, Release):
            return release(error.delay)
        if run.context.stopped and isinstance(error, Stopped):
            return release()
        if run.is_given_back and not isinstance(error, PermanentError):
            return release()  # A deploy must not eat the retries.
        log.info("job %s (%s) failed in attempt %d", run.job.id, run.job.type, run.job.attempt, exc_info=error)
        return failure_from(error)

    async def _handle(self, run: _Run) -> Body:
        handler = self._handlers[run.job.type]
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
            answer = handler(run.context)
        else:
            answer = await self._in_thread(handler, run.context)
        return await answer if isinstance(answer, Awaitable) else answer

    async def _in_thread(self, handler: Handler, context: JobContext) -> Awaitable[Body] | Body:
        """Ends when the thread does: a cancelled wait would let a second run of the job start beside it."""
        in_context = contextvars.copy_context()
        running = asyncio.get_running_loop().run_in_executor(self._threads, in_context.run, handler, context)
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                if self._is_abandoned:
                    raise
        return running.result()

    def _settle_unstarted(self, run: _Run, change: UpdateJobRequest) -> None:
        run.phase = _Phase.SETTLING
        self._spawn(self._settle(run, change))

    async def _settle(self, run: _Run, change: UpdateJobRequest) -> None:
        """Reports, until there is an answer. The lease is kept alive meanwhile."""
        try:
            answer = await self._send(run, change)
            if isinstance(answer, JobwireError) and change.HasField("complete") and not is_over(answer):
                # Such as a result that is too large. Without a settlement the job would run again and again.
                log.error("the result of job %s was refused, failing it: %s", run.job.id, answer)
                change = failure(code=answer.reason, message=answer.message, permanent=True)
                answer = await self._send(run, change)
        finally:
            self._end(run)
        if isinstance(answer, JobwireError):
            log.warning("the settlement of job %s was refused: %s", run.job.id, answer)
        if self._on_settled is not None:
            verb = change.WhichOneof("change") or ""
            try:
                self._on_settled(Settled(run.job, run.assignment.fence, verb, answer))
            except Exception:
                log.exception("on_settled failed for job %s", run.job.id)

    async def _send(self, run: _Run, change: UpdateJobRequest) -> UpdateJobResponse | JobwireError:
        change.job_id, change.token = run.job.id, run.assignment.token
        try:
            return await self._settler.send(change)
        except JobwireError as error:
            return error

    def _end(self, run: _Run) -> None:
        run.phase = _Phase.ENDED
        self._leases.drop(run.assignment.token)
        self._by_token.pop(run.assignment.token, None)
        if self._newest.get(run.job.id) is run:
            del self._newest[run.job.id]
        self._acknowledged.set()

    # --- stopping

    def _cancel(self, run: _Run, reason: str) -> None:
        if run.phase is _Phase.WAITING:
            self._waiting.remove(run)
            self._settle_unstarted(run, release())
        elif run.phase is _Phase.RUNNING:
            run.stop(cancel_reason=reason)

    def _lose(self, run: _Run) -> None:
        """A settlement under way is judged by its own answer; before that, the run reports nothing."""
        self._leases.drop(run.assignment.token)
        if run.phase is _Phase.WAITING:
            self._waiting.remove(run)
            self._end(run)
        elif run.phase is _Phase.RUNNING:
            run.is_lost = True
            run.stop()

    # --- odds

    def _reporter(self, assignment: Assignment) -> Callable[[float | None, str], Awaitable[None]]:
        async def report(fraction: float | None, message: str) -> None:
            progress = ReportProgress(fraction=fraction, message=clean_text(message, 256))
            request = UpdateJobRequest(job_id=assignment.job.id, token=assignment.token, progress=progress)
            try:
                await self._settler.send(request)
            except LeaseLost:
                self.lose(assignment.job.id, assignment.fence)
            except JobwireError as error:
                log.info("a progress report of job %s was dropped: %s", assignment.job.id, error)

        return report

    def _warn_unknown(self, job: Job) -> None:
        if job.type not in self._unknown_types:
            self._unknown_types.add(job.type)
            log.warning(
                "no handler for jobs of type %r (queue %r), releasing each for %d s: use a queue per kind of worker",
                job.type,
                job.queue,
                UNKNOWN_TYPE_DELAY,
            )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a bug in the worker: a job was left without a settlement", exc_info=error)


def is_over(error: JobwireError) -> bool:
    """Nothing more can be reported of that attempt."""
    return isinstance(error, LeaseLost | AlreadySettled | JobNotFound)


def release(delay: float | timedelta = 0) -> UpdateJobRequest:
    return UpdateJobRequest(release=ReleaseJob(delay=to_duration(delay) if delay else None))


def failure(
    *, code: str, message: str, permanent: bool = False, after: float | timedelta | None = None
) -> UpdateJobRequest:
    """Cut to what the contract takes: a failure must not get lost for its length."""
    error = JobError(code=clean_text(code, 256), message=clean_text(message, 4096))
    delay = None if after is None else to_duration(after)
    return UpdateJobRequest(fail=FailJob(error=error, permanent=permanent, retry_delay=delay))


def failure_from(error: BaseException) -> UpdateJobRequest:
    """What an exception of a handler means."""
    name = type(error).__name__
    match error:
        case PermanentError():
            return failure(code=error.code or name, message=str(error), permanent=True)
        case Retry():
            return failure(code=error.code or name, message=str(error), after=error.after)
        case _:
            return failure(code=name, message=str(error))
