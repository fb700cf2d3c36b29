"""What tests/polyglot drives: it makes the calls it is told on stdin, by the plain stubs, or runs a worker of the
client, and prints what it sees as JSON, a line each."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

from jobwire.v1 import job_service_pb2, worker_service_pb2
from jobwire.v1.job_service_pb2 import WatchJobsRequest
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobwire_client import JobContext, JobwireError, PermanentError, Settled, Superseded, Worker
from jobwire_client.errors import from_rpc_error

ADDRESS = sys.argv[1]


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


# --- calls ------------------------------------------------------------------------------------------------------------


def call(channel: grpc.Channel, name: str, given: Any) -> None:
    of_workers = name in {"Heartbeat", "DrainWorker"}
    stub = WorkerServiceStub(channel) if of_workers else JobServiceStub(channel)
    messages = worker_service_pb2 if of_workers else job_service_pb2
    request = ParseDict(given, getattr(messages, f"{name}Request")())
    try:
        answer = getattr(stub, name)(request, wait_for_ready=True)
        seen = [MessageToDict(each) for each in answer] if name == "ClaimJob" else MessageToDict(answer)
    except grpc.RpcError as rpc_error:
        error = from_rpc_error(rpc_error)
        tell(code=error.code.value[0], reason=error.reason)
    else:
        tell(response=seen)


# --- work -------------------------------------------------------------------------------------------------------------


async def work(told: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    finish = asyncio.Event()
    is_draining = False

    def settled(news: Settled) -> None:
        reason = news.answer.reason if isinstance(news.answer, JobwireError) else ""
        tell(event="settled", job=news.job.id, verb=news.verb, reason=reason)

    def started(context: JobContext) -> None:
        tell(event="started", job=context.job.id, attempt=context.job.attempt, fence=str(context.fence))

    worker = Worker(
        ADDRESS,
        id=told["id"],
        queues=told["queues"],
        concurrency=told["concurrency"],
        lease_duration=told["leaseSeconds"],
        grace=told["graceSeconds"],
        on_start=started,
        on_settled=settled,
    )

    @worker.handler("echo")
    async def echo(context: JobContext) -> Any:
        return context.job.payload

    @worker.handler("flaky")
    async def flaky(context: JobContext) -> None:
        if context.job.attempt == 1:
            raise RuntimeError("told to fail")

    @worker.handler("doomed")
    async def doomed(context: JobContext) -> None:
        raise PermanentError("told to fail for good", code="DOOMED")

    @worker.handler("hold")
    async def hold(context: JobContext) -> None:
        await context.report(0.5, "half way")
        await mute(context)

    @worker.handler("mute")
    async def mute(context: JobContext) -> None:
        tell(event="holding", job=context.job.id)
        try:
            await finish.wait()
        except asyncio.CancelledError:
            cause = "draining" if is_draining else "lost"
            if context.cancelled:
                cause = f"canceled for {context.cancel_reason}"
            tell(event="stopped", job=context.job.id, cause=cause)
            raise

    def drain() -> None:
        nonlocal is_draining
        is_draining = True
        worker.stop()
        tell(event="draining")

    loop.add_signal_handler(signal.SIGTERM, drain)
    loop.add_reader(sys.stdin, finish.set)  # the next line is the word to finish
    try:
        await worker.run()
    except Superseded as error:
        tell(event="ended", reason=error.reason)
    else:
        tell(event="ended", reason="")


def main() -> None:
    with grpc.insecure_channel(ADDRESS) as channel:
        while line := sys.stdin.readline():
            told = json.loads(line)
            if "watch" in told:
                for event in JobServiceStub(channel).WatchJobs(ParseDict(told["watch"], WatchJobsRequest())):
                    tell(**MessageToDict(event))
            if "work" in told:
                asyncio.run(work(told["work"]))
                return
            call(channel, told["call"], told["request"])


main()
