"""A worker: claims jobs, runs the handlers of their types, settles.

    worker = Worker(queues=["mail"], concurrency=10)

    @worker.handler("email.send")
    async def send(context: JobContext) -> None:
        ...

    worker.run_forever()

A job may run more than once: at least once is what a lease can promise. Handlers whose effects must not be doubled hand
`context.fence` to what they write to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
import signal
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, TypeVar

import grpc

from jobwire.v1.job_service_pb2 import ClaimJobRequest, ClaimJobResponse
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_pb2 import WorkerDirective, WorkerIdentity
from jobwire.v1.worker_service_pb2 import LeaseState
from jobwire_client._backoff import Backoff
from jobwire_client._channel import DEFAULT_TARGET, open_channel
from jobwire_client._convert import to_duration
from jobwire_client._heartbeat import Beaten, Heartbeat
from jobwire_client._outage import Outage, brief, is_expected
from jobwire_client._runs import Runs, Settled
from jobwire_client._settler import Settler
from jobwire_client.context import Handler
from jobwire_client.errors import JobwireError, Superseded, from_rpc_error

if TYPE_CHECKING:  # at run time neither class takes parameters
    ClaimStream: TypeAlias = grpc.aio.UnaryStreamCall[ClaimJobRequest, ClaimJobResponse]
    ClaimJob: TypeAlias = grpc.aio.UnaryStreamMultiCallable[ClaimJobRequest, ClaimJobResponse]

SILENCE: Final = 45.0
"""Seconds without a word, three keepalives, after which a stream counts as dead although its connection lives."""
ACKNOWLEDGE_TIMEOUT: Final = 1.0
"""Seconds that the last deliveries are given to be acknowledged before a stopping worker closes its stream."""

STEADY: Final = 0.2
"""Seconds that a stream must have lived for the outage before it to be over: a refusal begins as a stream does."""
SAME_WISH: Final = 0.1
"""Seconds within which a second signal counts as the first: GNU timeout and some shells signal the process and its
group."""

AnyHandler = TypeVar("AnyHandler", bound=Handler)

log = logging.getLogger("jobwire.worker")


class Worker:
    """One worker id with one claim stream. Run it once; `stop` may be called from anywhere in its event loop."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        queues: Sequence[str] = (),
        concurrency: int = 10,
        lease_duration: float | timedelta = 30,
        grace: float = 20.0,
        id: str = "",
        labels: dict[str, str] | None = None,
        version: str = "",
        on_settled: Callable[[Settled], None] | None = None,
    ) -> None:
        """
        queues: in the order they are visited; `default` when empty.
        concurrency: handlers at a time, and jobs held at a time.
        lease_duration: how long a job stays with this worker when it falls silent, 1 s to 12 h.
        grace: seconds that handlers have to finish after `stop` or a signal.
        id: unique among running processes; host, pid and something random by default.
        version: of your program, for people.
        on_settled: called in the event loop with each settlement and its answer; must not block.
        """
        self._target = target
        self._queues = list(queues)
        self._concurrency = concurrency
        self._lease_duration = to_duration(lease_duration)
        self._grace = grace
        self._on_settled = on_settled
        self._identity = WorkerIdentity(
            id=id or new_worker_id(),
            labels=labels,
            host=socket.gethostname(),
            pid=os.getpid(),
            runtime=f"python/{platform.python_version()} jobwire/{_own_version()}",
            version=version,
        )
        self._handlers: dict[str, Handler] = {}
        self._session = 0
        self._stopping = asyncio.Event()
        self._is_draining = False
        self._signalled: float | None = None
        """When the first signal came."""

    @property
    def id(self) -> str:
        """As shown in `ListWorkers` and in each job's attempts."""
        return self._identity.id

    def handler(self, type: str) -> Callable[[AnyHandler], AnyHandler]:
        """Registers the function that runs jobs of this type: async, or plain, which then runs in a thread.

        It is given a JobContext, and what it returns (None, bytes, str, a Payload, or what JSON can say) is the job's
        result. An exception is a failure and leads to a retry; see PermanentError, Retry and Release for the others.
        """

        def register(function: AnyHandler) -> AnyHandler:
            if type in self._handlers:
                raise ValueError(f"there is a handler for {type!r} already")
            self._handlers[type] = function
            return function

        return register

    def stop(self) -> None:
        """Begins the drain: `run` claims no more, lets handlers finish for `grace`, releases the rest and returns."""
        self._stopping.set()

    def run_forever(self) -> None:
        """`run` in an event loop of its own, until SIGTERM or Ctrl-C. A second signal ends the process at once.

        The exit code then is 143 or 130, and what it held runs again when the leases have run out.
        """
        asyncio.run(self._run_until_signal())

    async def run(self) -> None:
        """Works until `stop`; returns when everything is settled.

        Raises Superseded when another process uses this worker's id, and InvalidField when the server will never take
        its request; in both cases after the drain. Anything else is lived through. Cancelled, it drains without grace.
        """
        if not self._handlers:
            raise ValueError("a worker without handlers: register some with @worker.handler(type)")
        async with open_channel(self._target) as channel:
            jobs = JobServiceStub(channel)
            settler = Settler(jobs)
            loop = asyncio.get_running_loop()

            def heard(beaten: Sequence[Beaten], directive: WorkerDirective.ValueType) -> None:
                try:
                    loop.call_soon_threadsafe(self._heard, runs, beaten, directive)
                except RuntimeError:  # the loop has ended without us; nobody is left to be told
                    log.debug("a heartbeat was answered after the end")

            heartbeat = Heartbeat(
                self._target, self._identity, self._lease_duration.ToTimedelta().total_seconds(), heard
            )
            runs = Runs(
                handlers=self._handlers,
                concurrency=self._concurrency,
                settler=settler,
                leases=heartbeat,
                on_settled=self._on_settled,
            )
            claiming = asyncio.create_task(self._claim(jobs.ClaimJob, runs))
            stopping = asyncio.create_task(self._stopping.wait())
            grace = 0.0
            heartbeat.start()
            log.info("worker %s claims from %s at %s", self.id, self._queues or ["default"], self._target)
            try:
                await asyncio.wait([claiming, stopping], return_when=asyncio.FIRST_COMPLETED)
                grace = self._grace
            finally:
                stopping.cancel()
                self._is_draining = True
                self._log_drain(runs.held, grace)
                # Closing the stream hands unacknowledged deliveries back, so those that run here come first.
                await runs.acknowledged(timeout=ACKNOWLEDGE_TIMEOUT)
                claiming.cancel()
                await asyncio.wait([claiming])
                await runs.drain(grace)
                await settler.close()
                await asyncio.to_thread(heartbeat.stop)
                log.info("worker %s has ended", self.id)
            if not claiming.cancelled():
                claiming.result()

    async def _run_until_signal(self) -> None:
        loop = asyncio.get_running_loop()

        # Not by the loop: a handler that blocks it must not keep a second signal from ending the process.
        def caught(number: int, _frame: FrameType | None) -> None:
            now = time.monotonic()
            if self._signalled is None:
                self._signalled = now
                loop.call_soon_threadsafe(self._stop_by_signal)
            elif now - self._signalled > SAME_WISH:
                end_process(number)

        before = {number: signal.signal(number, caught) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            await self.run()
        finally:
            # After a signal the process is about to end, and a thread that still runs can hold that up.
            if self._signalled is None:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _stop_by_signal(self) -> None:
        if self._is_draining:
            log.warning("draining already; the same again stops at once")
        self.stop()

    def _log_drain(self, held: int, grace: float) -> None:
        level, again = logging.INFO, ""
        if self._signalled is not None:
            level, again = logging.WARNING, "; the same again stops at once"
        if held == 0:
            log.log(level, "draining: no job is held%s", again)
        else:
            log.log(
                level, "draining: %d %s %g s to finish%s", held, "job has" if held == 1 else "jobs have", grace, again
            )

    def _heard(self, runs: Runs, beaten: Sequence[Beaten], directive: WorkerDirective.ValueType) -> None:
        for lease in beaten:
            is_canceled = lease.status.state == LeaseState.LEASE_STATE_CANCEL_REQUESTED
            runs.beaten(
                lease.token,
                is_lost=lease.status.state == LeaseState.LEASE_STATE_LOST,
                cancel_reason=lease.status.cancel_reason if is_canceled else None,
            )
        if directive == WorkerDirective.WORKER_DIRECTIVE_TERMINATE:
            log.info("an operator ends worker %s", self.id)
            self.stop()

    async def _claim(self, claim: ClaimJob, runs: Runs) -> None:
        """Keeps one claim stream open. Returns never; raises what no reconnecting can mend."""
        backoff, outage = Backoff(), Outage()
        loop = asyncio.get_running_loop()
        while True:
            opened = time.monotonic()
            call = claim(self._claim_request())
            error: JobwireError | None = None
            cause = "its stream has ended"
            steady: asyncio.TimerHandle | None = None
            reconnect_after: float | None = None
            try:
                async with asyncio.timeout(SILENCE):
                    await call.initial_metadata()
                steady = loop.call_later(STEADY, self._log_recovery, outage)
                while (event := await self._next(call)) is not None:
                    backoff.reset()
                    if event.HasField("drain") and event.drain.HasField("reconnect_after"):
                        reconnect_after = event.drain.reconnect_after.ToTimedelta().total_seconds()
                    self._take(event, runs)
            except grpc.aio.AioRpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                cause = brief(error)
            except TimeoutError:
                cause = f"its stream was silent for {SILENCE:g} s"
            finally:
                if steady is not None:
                    steady.cancel()
                call.cancel()
            if isinstance(error, Superseded) or (error and error.code == grpc.StatusCode.INVALID_ARGUMENT):
                log.error("worker %s ends: %s", self.id, error)
                raise error
            if time.monotonic() - opened > SILENCE:
                backoff.reset()
            retry_after = error.retry_after if error else None
            wait = backoff.next(at_least=retry_after if reconnect_after is None else reconnect_after)
            level = outage.level(cause, wait, is_expected=is_expected(error))
            log.log(level, "worker %s reconnects in %.1f s: %s", self.id, wait, cause)
            await asyncio.sleep(wait)

    def _log_recovery(self, outage: Outage) -> None:
        if (seconds := outage.end()) is not None:
            log.info("worker %s is connected again after %.1f s", self.id, seconds)

    @staticmethod
    async def _next(call: ClaimStream) -> ClaimJobResponse | None:
        async with asyncio.timeout(SILENCE):
            event = await call.read()
        return event if isinstance(event, ClaimJobResponse) else None  # otherwise grpc.aio.EOF

    def _take(self, event: ClaimJobResponse, runs: Runs) -> None:
        match event.WhichOneof("event"):
            case "jobs":
                runs.assign(event.jobs.assignments)
            case "cancel":
                runs.cancel(event.cancel.job_id, event.cancel.fence, event.cancel.reason)
            case "lost":
                runs.lose(event.lost.job_id, event.lost.fence)
            case "drain":
                log.info("worker %s gets no more jobs on this stream", self.id)
            case _:
                pass  # a keepalive, or something newer than this client

    def _claim_request(self) -> ClaimJobRequest:
        self._session = max(self._session + 1, time.time_ns() // 1000)
        worker = WorkerIdentity(session=self._session)
        worker.MergeFrom(self._identity)
        return ClaimJobRequest(
            worker=worker,
            queues=self._queues,
            max_in_flight=self._concurrency,
            lease_duration=self._lease_duration,
        )


def new_worker_id() -> str:
    """Host, pid and something random, in the grammar of worker names."""
    host = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).lstrip("._-")[:32]
    return f"{host or 'worker'}-{os.getpid()}-{os.urandom(4).hex()}"


def end_process(number: int) -> NoReturn:
    """Ends this process as a shell has it for that signal, and only the log is tidied up."""
    # For a log that cannot be written: one signal more ends it.
    signal.signal(number, signal.SIG_DFL)
    try:
        log.warning("stopped at once: what ran here will run again when its lease has run out")
        logging.shutdown()
    finally:
        os._exit(128 + number)


def _own_version() -> str:
    try:
        return version("jobwire")
    except PackageNotFoundError:  # run from a working copy that is not installed
        return "0"
