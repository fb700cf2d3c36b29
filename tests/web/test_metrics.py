"""What Prometheus is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.rpc.standins import running
from tests.web.conftest import Web, beside

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_server.app import App
from jobwire_server.domain.activity import Event
from jobwire_server.web.metrics import NAMED, REST

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

STORES = pytest.mark.parametrize("engine", ["sqlite", "valkey"])


class Scrape:
    """One reading."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, sample: str, **labels: str) -> float | None:
        """The sum of the samples of this name that have these labels; None when there is none."""
        found = [
            each.value
            for family in self.families.values()
            for each in family.samples
            if each.name == sample and labels.items() <= each.labels.items()
        ]
        return sum(found) if found else None


async def scrape(web: Web) -> Scrape:
    answer = await web.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.body.decode())


@pytest.fixture
async def jobs(app: App) -> AsyncIterator[JobServiceAsyncStub]:
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield JobServiceStub(channel)


@STORES
async def test_the_page_lists_each_metric_and_no_other(web: Web, repository: Path) -> None:
    page = (repository / "docs" / "metrics.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    there = {
        name + ("_total" if family.type == "counter" else "") for name, family in (await scrape(web)).families.items()
    }
    assert sorted(told) == sorted(there)


async def test_calls_are_counted_by_method_and_code_whichever_way_they_come(app: App, web: Web) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        await JobServiceStub(channel).CountJobs(api.CountJobsRequest())
    await web.call("JobService/CountJobs")
    await web.call("JobService/GetJob", {"job_id": "nobody"})
    await web.call("JobService/GetJob", {"job_id": "??"})
    found = await scrape(web)
    labels = {"grpc_service": "jobwire.v1.JobService", "grpc_type": "unary"}
    assert found.value("grpc_server_started_total", grpc_method="CountJobs", **labels) == 2
    assert found.value("grpc_server_handled_total", grpc_method="CountJobs", grpc_code="OK", **labels) == 2
    assert found.value("grpc_server_handling_seconds_count", grpc_method="CountJobs", **labels) == 2
    assert found.value("grpc_server_handled_total", grpc_method="GetJob", grpc_code="NotFound", **labels) == 1
    assert found.value("grpc_server_handled_total", grpc_method="GetJob", grpc_code="InvalidArgument", **labels) == 1
    assert found.value("grpc_server_handled_total", grpc_method="GetJob", grpc_code="OK") is None


async def test_a_call_that_is_given_up_is_counted_as_cancelled() -> None:
    async with running() as run, beside(run) as web:
        run.services.on_get = asyncio.Event().wait  # type: ignore[assignment]  # it never answers
        await web.call("JobService/GetJob", {"job_id": "j"}, connect_timeout_ms="20")
        found = await scrape(web)
        assert found.value("grpc_server_handled_total", grpc_method="GetJob", grpc_code="Cancelled") == 1


@STORES
async def test_jobs_are_told_by_queue_and_state_with_the_age_of_the_next(web: Web) -> None:
    for queue in ("a", "a", "b"):
        await web.call("JobService/CreateJob", {"job": {"queue": queue}})
    await web.call("JobService/CreateJob", {"job": {"queue": "b", "schedule_time": "2100-01-01T00:00:00Z"}})
    await web.call("QueueService/UpdateQueue", {"queue": {"name": "b", "paused": True}, "update_mask": "paused"})
    found = await scrape(web)
    assert found.value("jobwire_jobs", queue="a", state="queued") == 2
    assert found.value("jobwire_jobs", queue="b") == 2
    assert found.value("jobwire_jobs", state="scheduled") == 1
    assert (found.value("jobwire_queue_oldest_waiting_seconds", queue="a") or 0) > 0
    assert [found.value("jobwire_queue_paused", queue=queue) for queue in "ab"] == [0, 1]
    assert found.value("jobwire_queues") == 2


@STORES
async def test_many_queues_have_no_series_of_their_own(web: Web) -> None:
    names = [f"queue-{number:04}" for number in range(NAMED + 3)]
    requests = [{"job": {"queue": name}} for name in names]
    await web.call("JobService/BatchCreateJobs", {"requests": requests})
    found = await scrape(web)
    queues = {each.labels["queue"] for each in found.families["jobwire_jobs"].samples}
    assert queues == {*names[:NAMED], REST}
    assert found.value("jobwire_jobs", queue=REST, state="queued") == 3
    assert (found.value("jobwire_queue_oldest_waiting_seconds", queue=REST) or 0) > 0
    assert found.value("jobwire_jobs") == found.value("jobwire_queues") == NAMED + 3


@STORES
async def test_what_a_claim_takes_and_what_the_store_does_is_measured(
    app: App, web: Web, jobs: JobServiceAsyncStub, engine: str
) -> None:
    await web.call("JobService/BatchCreateJobs", {"requests": [{"job": {}} for _ in range(3)]})
    claims = jobs.ClaimJob(api.ClaimJobRequest(max_jobs=3, max_in_flight=3))
    got = [assignment async for event in claims for assignment in event.jobs.assignments]
    assert len(got) == 3
    settled = {"job_id": got[0].job.id, "token": got[0].token, "complete": {}}
    assert (await web.call("JobService/UpdateJob", settled)).status == 200
    found = await scrape(web)
    assert found.value("jobwire_store_call_items_sum", verb="claim") == 3
    assert found.value("jobwire_store_call_items_sum", verb="create") == 3
    assert found.value("jobwire_store_call_items_sum", verb="move") == 1
    assert (found.value("jobwire_store_call_seconds_count", verb="claim") or 0) >= 1
    step = "commit" if engine == "sqlite" else "complete"
    assert (found.value("jobwire_store_step_seconds_count", step=step) or 0) >= 1
    assert (found.value("jobwire_coalescer_wait_seconds_count", of="complete") or 0) == 1
    assert (found.value("jobwire_coalescer_wait_seconds_count", of="claim") or 0) >= 1
    assert found.value("grpc_server_handled_total", grpc_method="ClaimJob", grpc_code="OK") == 1
    assert found.value("jobwire_workers", state="busy") == 1
    counted = {event: found.value(f"jobwire_jobs_{event}_total", queue="default") for event in Event}
    assert counted == dict.fromkeys(Event, 0) | {"created": 3, "claimed": 3, "completed": 1}
    assert (found.value("jobwire_jobs_run_seconds_total") or 0) > 0


async def test_open_streams_are_counted_while_they_are_open(web: Web, jobs: JobServiceAsyncStub) -> None:
    assert (await scrape(web)).value("jobwire_streams") == 0
    stream = jobs.ClaimJob(api.ClaimJobRequest())
    await stream.initial_metadata()
    found = await scrape(web)
    assert found.value("jobwire_streams") == 1
    assert found.value("grpc_server_started_total", grpc_method="ClaimJob") == 1
    assert found.value("grpc_server_handled_total", grpc_method="ClaimJob") is None
    stream.cancel()
    async with asyncio.timeout(10):
        while (await scrape(web)).value("jobwire_streams"):
            pass  # the server hears of it a few steps of the loop later


async def test_without_its_store_a_server_tells_the_rest() -> None:
    async with running() as run, beside(run) as web:
        run.services.store_is_away = True
        found = await scrape(web)
        assert found.value("jobwire_store_up") == 0
        assert found.value("jobwire_jobs") is None
        assert found.value("grpc_server_started_total") == 0
        assert (found.value("process_resident_memory_bytes") or 0) > 1e6
