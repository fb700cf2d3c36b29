"""What operators do stands in the log: on a bad night somebody asks who has paused that queue."""

from __future__ import annotations

import logging

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.rpc.calls import create
from tests.rpc.conftest import Wire

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import queue_service_pb2 as queue_api
from jobwire.v1 import worker_pb2, worker_service_pb2
from jobwire.v1.job_pb2 import JobFilter
from jobwire.v1.queue_pb2 import Queue

SECRET = "s3cr3t"


async def test_each_action_is_one_line_without_what_its_caller_wrote(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    await create(wire, "j", queue="q")
    worker = worker_pb2.WorkerIdentity(id="w")
    await wire.workers.Heartbeat(worker_service_pb2.HeartbeatRequest(worker=worker))
    with caplog.at_level(logging.INFO):
        pause = queue_api.UpdateQueueRequest(
            queue=Queue(name="q", paused=True), update_mask=FieldMask(paths=["paused"])
        )
        await wire.queues.UpdateQueue(pause)
        await wire.jobs.CancelJobs(api.CancelJobsRequest(filter=JobFilter(queues=["q"]), reason=SECRET))
        drain = worker_service_pb2.DrainWorkerRequest(worker_id="w", directive=worker_pb2.WORKER_DIRECTIVE_QUIET)
        await wire.workers.DrainWorker(drain)
        dry = api.DeleteJobsRequest(filter=JobFilter(queues=["q"]), validate_only=True)
        await wire.jobs.DeleteJobs(dry)
    assert [record.getMessage() for record in caplog.records] == [
        "settings of queue q: {'paused': True}",
        "cancel by filter: 1 jobs",
        "worker w is told: quiet",
    ]
