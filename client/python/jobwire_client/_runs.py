"""The jobs a worker holds, from their assignment to the answer to their settlement."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol, cast

from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import Assignment, ReportProgress, UpdateJobRequest, UpdateJobResponse
from jobwire_client._convert import Body, clean_text
from jobwire_client._settler import Settler, completion, failure, failure_from, is_over, release
from jobwire_client._tracing import are_kept, run_of
from jobwire_client.context import Handler, JobContext, PermanentError, Release, Stopped
from jobwire_client.errors import JobwireError, LeaseLost
from jobwire_client.hooks import Ended, Hooks, Settled, tell

UNKNOWN_TYPE_DELAY: Final = 30.0
"""Seconds for which a job without a handler here is left to other workers."""
STOP_TIMEOUT: Final = 5.0
"""Seconds a stopped handler has to end, and the settlements after it to be answered, when the worker shuts down."""

ABANDON_TIMEOUT: Final = 1.0
"""Seconds that those are waited for which have not heeded that."""

log = logging.getLogger("jobwire.worker")


class Leases(Protocol):
    """What keeps leases alive: the heartbeat. It has been told of a delivery before that comes here."""

    def settling(self, token: str) -> None:
        """Its settlement, which is on its way, acknowledges it."""

    def drop(self, token: str) -> None:
        """Beats for it no more."""


_NO_SPAN: Final = nullcontext()


class _Runner(NamedTuple):
    """A handler, and how it is run."""

    handler: Handler
    is_async: bool
    """In the event loop, not in a thread."""


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
        self.job = assignment.job
        self.context = context
        self.older = older
        self.phase = _Phase.WAITING
        self.deadline: float | None = None
        """By the loop's clock: the end of its `execution_timeout`."""
        self.task: asyncio.Task[None] | None = None
        """While the handler runs in it."""
        self.is_acknowledged = False
        self.is_lost = False
        self.is_given_back = False
        self.is_timed_out = False

    @property
    def may_start(self) -> bool:
        return self.older is None or self.older.phase is not _Phase.RUNNING

    def stop(self, *, cancel_reason: str | None = None) -> None:
        """Once: a second cancellation would hit the handler while it tidies up."""
        if self.context.stopped:
            return
        self.context.stop(cancel_reason=cancel_reason)
        if self.task is not None:
            self.task.cancel()

    def time_out(self) -> None:
        """The server takes the job back by itself; the handler must not go on beside the next attempt."""
        if not self.context.stopped:
            self.is_timed_out = True
            self.stop()


class Runs:
    """At most `concurrency` handlers at a time, never two of one job, and for each run one settlement or none."""

    def __init__(
        self,
        *,
        handlers: Mapping[str, Handler],
        default_handler: Handler | None,
        concurrency: int,
        settler: Settler,
        leases: Leases,
        hooks: Hooks,
    ) -> None:
        self._runners = {type: _Runner(handler, is_async(handler)) for type, handler in handlers.items()}
        self._default = None if default_handler is None else _Runner(default_handler, is_async(default_handler))
        self._free = concurrency
        self._settler = settler
        self._leases = leases
        self._hooks = hooks
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="jobwire-handler")
        self._newest: dict[str, _Run] = {}
        self._by_token: dict[str, _Run] = {}
        self._waiting: deque[_Run] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._acknowledged = asyncio.Event()
        self._unknown_types: set[str] = set()
        self._has_spans = False
        """Asked at each message: a provider may be set at any time, and to ask costs as much as a handler."""
        self._is_draining = False
        self._is_abandoned = False

    @property
    def held(self) -> int:
        """Jobs whose settlement is not answered yet."""
        return len(self._by_token)

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Takes jobs over, which are beaten for already."""
        self._has_spans = are_kept()
        runs: list[_Run] = []
        for assignment in assignments:
            older = self._newest.get(assignment.job.id)
            if older is not None and older.assignment.fence >= assignment.fence:
                log.warning("job %s came with an old fence, ignored", assignment.job.id)
                self._leases.drop(assignment.token)
                continue
            if older is not None and older.phase is _Phase.WAITING:
                older_still = older.older
                self._lose(older)
                older = older_still
            elif older is not None and older.phase is _Phase.RUNNING:
                log.warning("job %s was claimed anew while it runs here, stopping the older run", assignment.job.id)
                self._lose(older)
            run = _Run(assignment, JobContext(assignment, self._reporter(assignment)), older)
            if assignment.job.HasField("execution_timeout"):
                timeout = assignment.job.execution_timeout.ToTimedelta().total_seconds()
                run.deadline = asyncio.get_running_loop().time() + timeout
            self._newest[run.job.id] = self._by_token[assignment.token] = run
            runs.append(run)
        for run in runs:
            if self._is_draining:
                self._settle_unstarted(run, release())
            elif self._runner_of(run.job) is None:
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
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ABANDON_TIMEOUT)
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
        loop = asyncio.get_running_loop()
        timer = None if run.deadline is None else loop.call_at(run.deadline, run.time_out)
        began = time.perf_counter()
        try:
            change, error = await self._outcome(run)
        finally:
            if timer is not None:
                timer.cancel()
            self._free += 1
            run.phase = _Phase.SETTLING
            run.task = None
            self._start()
        verb = "lost" if run.is_lost else change.WhichOneof("change") or ""
        if self._hooks.on_end is not None:
            seconds = time.perf_counter() - began
            tell(self._hooks.on_end, Ended(run.job, run.assignment.fence, verb, seconds, error), run.job)
        if run.is_lost:
            log.info("job %s was taken from this worker, nothing is reported", run.job.id)
            self._end(run)
        else:
            await self._settle(run, change)

    async def _outcome(self, run: _Run) -> tuple[UpdateJobRequest, BaseException | None]:
        """Runs the handler to its end, however that comes, and says what to report."""
        if run.context.stopped:
            return release(), None
        run.task = task = cast("asyncio.Task[None]", asyncio.current_task())
        tell(self._hooks.on_start, run.context, run.job)
        failed: BaseException
        try:
            with run_of(run.job) if self._has_spans else _NO_SPAN:
                return completion(await self._handle(run)), None
        except asyncio.CancelledError as cancelled:
            if self._is_abandoned:
                raise
            failed = cancelled
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a handler raises, sys.exit() included, is its own failure
            failed = error
        finally:
            # What cancelled the handler is not to be felt by its settlement.
            while task.cancelling():
                task.uncancel()
        return self._verdict(run, failed)

    def _verdict(self, run: _Run, error: BaseException) -> tuple[UpdateJobRequest, BaseException | None]:
        if isinstance(error, Release):
            return release(error.delay), None
        is_end_of_stop = run.context.stopped and isinstance(error, Stopped | asyncio.CancelledError)
        if run.is_timed_out and is_end_of_stop:
            timeout = run.job.execution_timeout.ToTimedelta().total_seconds()
            return failure(code="EXECUTION_TIMEOUT", message=f"it ran for {timeout:g} s"), error
        # A deploy must not eat the retries.
        if is_end_of_stop or (run.is_given_back and not isinstance(error, PermanentError)):
            return release(), None
        log.info("job %s (%s) failed in attempt %d", run.job.id, run.job.type, run.job.attempt, exc_info=error)
        if isinstance(error, asyncio.CancelledError):
            return failure(code="CancelledError", message="cancelled itself"), error
        return failure_from(error), error

    async def _handle(self, run: _Run) -> Body:
        runner = self._runner_of(run.job)
        assert runner is not None, "a job without one is given back, not started"
        if runner.is_async:
            answer = runner.handler(run.context)
        else:
            answer = await self._in_thread(runner.handler, run.context)
        return await answer if isinstance(answer, Awaitable) else answer

    def _runner_of(self, job: Job) -> _Runner | None:
        return self._runners.get(job.type, self._default)

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
        self._leases.settling(run.assignment.token)
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
        if self._hooks.on_settled is not None:
            verb = change.WhichOneof("change") or ""
            tell(self._hooks.on_settled, Settled(run.job, run.assignment.fence, verb, answer), run.job)

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


def is_async(handler: Handler) -> bool:
    """Runs in the event loop, not in a thread."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
