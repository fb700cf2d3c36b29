"""A worker: claims jobs, runs the handlers of their types, settles.

>>> async def main():
...     worker = Worker(address, queues=["greetings"], concurrency=10)
...
...     @worker.handler("hello")
...     async def hello(job: JobContext) -> str:
...         return f"hello, {job.text}"
...
...     working = asyncio.create_task(worker.run())  # a program that does nothing else: worker.run_forever()
...     async with AsyncClient(address) as client:
...         made = await client.create("hello", "world", queue="greetings")
...         print((await client.wait(made.id)).result.text)
...     worker.stop()
...     await working
>>> asyncio.run(main())
hello, world

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
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar, Unpack

from jobwire.v1.job_service_pb2 import ClaimJobRequest, ClaimJobResponse
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_pb2 import WorkerDirective, WorkerIdentity
from jobwire.v1.worker_service_pb2 import LeaseState
from jobwire_client._channel import DEFAULT_TARGET, Connection, ConnectOptions
from jobwire_client._claims import Claims
from jobwire_client._convert import to_duration
from jobwire_client._heartbeat import Beaten, Heartbeat
from jobwire_client._runs import Runs
from jobwire_client._settler import Settler
from jobwire_client.context import Handler, JobContext
from jobwire_client.hooks import Ended, Hooks, Settled

ACKNOWLEDGE_TIMEOUT: Final = 1.0
"""Seconds that the last deliveries are given to be acknowledged before a stopping worker closes its stream."""
SAME_WISH: Final = 0.1
"""Seconds within which a second signal counts as the first: GNU timeout and some shells signal the process and its
group."""

# Looked up once: the enum's names are found at run time.
_LOST: Final = LeaseState.LEASE_STATE_LOST
_CANCEL_REQUESTED: Final = LeaseState.LEASE_STATE_CANCEL_REQUESTED

AnyHandler = TypeVar("AnyHandler", bound=Handler)

log = logging.getLogger("jobwire.worker")


class Worker:
    """One worker id with one claim stream. Run it once; `stop` may be called from anywhere in its event loop.

    Deliveries are received and acknowledged, and leases kept, in threads of their own: a handler that blocks the event
    loop loses none. Settlements share calls. After a fork, use a worker made in the child.
    """

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
        on_start: Callable[[JobContext], None] | None = None,
        on_end: Callable[[Ended], None] | None = None,
        on_settled: Callable[[Settled], None] | None = None,
        **connect: Unpack[ConnectOptions],
    ) -> None:
        """
        queues: in the order they are visited; `default` when empty.
        concurrency: handlers at a time, and jobs held at a time.
        lease_duration: how long a job stays with this worker when it falls silent, 1 s to 12 h.
        grace: seconds that handlers have to finish after `stop` or a signal.
        id: unique among running processes; host, pid and something random by default.
        version: of your program, for people.
        on_start, on_end, on_settled: called in the event loop when a handler begins, when it has ended, and with the
        answer to its settlement: for metrics. They must not block.
        """
        self._connection = Connection.to(target, **connect)
        self._queues = list(queues)
        self._concurrency = concurrency
        self._lease_duration = to_duration(lease_duration)
        self._grace = grace
        self._hooks = Hooks(on_start, on_end, on_settled)
        self._identity = WorkerIdentity(
            id=id or new_worker_id(),
            labels=labels,
            host=socket.gethostname(),
            pid=os.getpid(),
            runtime=f"python/{platform.python_version()} jobwire/{_own_version()}",
            version=version,
        )
        self._handlers: dict[str, Handler] = {}
        self._default_handler: Handler | None = None
        self._session = 0
        self._stopping = asyncio.Event()
        self._is_draining = False
        self._directive: WorkerDirective.ValueType = WorkerDirective.WORKER_DIRECTIVE_NONE
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

    def default_handler(self, function: AnyHandler) -> AnyHandler:
        """Registers the function that runs jobs of every type that has no handler of its own.

        Without one such jobs are given back for half a minute, for a worker that knows their type.
        """
        if self._default_handler is not None:
            raise ValueError("there is a default handler already")
        self._default_handler = function
        return function

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

        Raises Superseded when another process uses this worker's id, InvalidField when the server will never take its
        request, and Unauthenticated or PermissionDenied when its token or certificate will not do; in each case after
        the drain. Anything else is lived through. Cancelled, it drains without grace.
        """
        if not self._handlers and self._default_handler is None:
            raise ValueError("a worker without handlers: register some with @worker.handler(type)")
        with self._connection.open_for_threads() as threads_channel:
            async with self._connection.open() as channel:
                settler = Settler(JobServiceStub(channel), brief=self._hooks.on_settled is None)
                loop = asyncio.get_running_loop()

                def heard(beaten: Sequence[Beaten], directive: WorkerDirective.ValueType) -> None:
                    try:
                        loop.call_soon_threadsafe(self._heard, runs, beaten, directive)
                    except RuntimeError:  # the loop has ended without us; nobody is left to be told
                        log.debug("a heartbeat was answered after the end")

                lease_seconds = self._lease_duration.ToTimedelta().total_seconds()
                heartbeat = Heartbeat(threads_channel, self._identity, lease_seconds, heard)
                runs = Runs(
                    handlers=self._handlers,
                    default_handler=self._default_handler,
                    concurrency=self._concurrency,
                    settler=settler,
                    leases=heartbeat,
                    hooks=self._hooks,
                )
                take = partial(self._take, runs, heartbeat)
                claims = Claims(threads_channel, self.id, self._claim_request, heartbeat, take)
                await self._work(claims, heartbeat, runs, settler)

    async def _work(self, claims: Claims, heartbeat: Heartbeat, runs: Runs, settler: Settler) -> None:
        watching = asyncio.create_task(claims.watch())
        stopping = asyncio.create_task(self._stopping.wait())
        grace = 0.0
        heartbeat.start()
        claims.start()
        queues = ", ".join(self._queues) or "default"
        log.info("worker %s claims from %s at %s", self.id, queues, self._connection.target)
        try:
            ends: list[asyncio.Future[Any]] = [claims.ended, stopping]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            grace = self._grace
        finally:
            watching.cancel()
            stopping.cancel()
            self._is_draining = True
            self._log_drain(runs.held, grace)
            # Closing the stream hands unacknowledged deliveries back, so those that run here come first; and soon, for
            # while it is open it brings new ones.
            heartbeat.ask()
            await runs.acknowledged(timeout=ACKNOWLEDGE_TIMEOUT)
            claims.stop()
            await asyncio.wait([claims.ended])
            await runs.drain(grace)
            await settler.close()
            await asyncio.to_thread(heartbeat.stop)
            log.info("worker %s has ended", self.id)
        claims.ended.result()

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
            state = lease.status.state
            reason = lease.status.cancel_reason if state == _CANCEL_REQUESTED else None
            runs.beaten(lease.token, is_lost=state == _LOST, cancel_reason=reason)
        self._obey(directive)

    def _obey(self, directive: WorkerDirective.ValueType) -> None:
        """What an operator wants. That a quiet worker gets no jobs is the server's doing."""
        before, self._directive = self._directive, directive
        if directive == before:
            return
        match directive:
            case WorkerDirective.WORKER_DIRECTIVE_TERMINATE:
                log.warning("an operator ends worker %s", self.id)
                self.stop()
            case WorkerDirective.WORKER_DIRECTIVE_QUIET:
                log.warning("an operator has quieted worker %s: it finishes what it holds, and stays", self.id)
            case _:
                log.info("worker %s claims again", self.id)

    def _take(self, runs: Runs, heartbeat: Heartbeat, event: ClaimJobResponse) -> None:
        match event.WhichOneof("event"):
            case "jobs":
                runs.assign(event.jobs.assignments)
            case "cancel":
                runs.cancel(event.cancel.job_id, event.cancel.fence, event.cancel.reason)
            case "lost":
                runs.lose(event.lost.job_id, event.lost.fence)
            case "drain" if event.drain.HasField("reconnect_after"):
                log.info("worker %s gets no more jobs on this stream", self.id)
            case "drain":
                heartbeat.ask()  # the answer says whether it may stay
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
