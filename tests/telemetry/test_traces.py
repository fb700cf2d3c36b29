"""Spans: of each call, kept with the job, linked to by its run, and sent to whoever collects them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.server_process import ServerProcess
from tests.valkey_process import Keyspace
from tests.web.conftest import Web

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_client import AsyncClient, JobContext, Release, Worker, _tracing
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.telemetry import traces
from jobwire_server.telemetry.traces import Traces

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

STORES = pytest.mark.parametrize("engine", ["sqlite", "valkey"])
TRACE = "0af7651916cd43dd8448eb211c80319c"
OUTER = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = f"00-{TRACE[::-1]}-b7ad6b7169203331-01"
SECRET = "s3cr3t"


class Spans:
    """What has been made and ended, by name."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def of(self, name: str) -> Sequence[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    async def one(self, name: str) -> ReadableSpan:
        """Waits until there is one."""
        async with asyncio.timeout(20):
            while not (found := self.of(name)):  # noqa: ASYNC110  the exporter tells nobody
                await asyncio.sleep(0.005)
        [span] = found
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def engine() -> str:
    return "memory"


@pytest.fixture
async def app(engine: str, keyspace: Keyspace | None, tmp_path: Path, spans: Spans) -> AsyncIterator[App]:
    url = "memory://" if engine == "memory" else keyspace.url if keyspace else f"sqlite:///{tmp_path}/jobs.db"
    app = App(Config(store=url, listen="127.0.0.1:0", drain_timeout=1), traces=Traces(spans.provider))
    await app.start()
    yield app
    await app.stop()


@pytest.fixture
async def jobs(app: App) -> AsyncIterator[JobServiceAsyncStub]:
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield JobServiceStub(channel)


@pytest.fixture
def web(app: App) -> Web:
    assert app.http_address is not None
    return Web(app.http_address)


def traceparent_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


async def test_a_call_is_a_span_of_its_callers_trace(jobs: JobServiceAsyncStub, spans: Spans) -> None:
    await jobs.CountJobs(api.CountJobsRequest(), metadata=(("traceparent", OUTER),))
    span = await spans.one("jobwire.v1.JobService/CountJobs")
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == TRACE
    assert span.kind is SpanKind.SERVER
    attributes = dict(span.attributes or {})
    assert str(attributes.pop("network.peer.address")).startswith("ipv4:127.0.0.1:")
    assert attributes == {"rpc.system": "grpc", "rpc.service": "jobwire.v1.JobService", "rpc.method": "CountJobs"}


async def test_a_call_over_http_is_one_too_and_begins_a_trace_where_there_is_none(web: Web, spans: Spans) -> None:
    await web.call("JobService/CountJobs", traceparent=OUTER)
    await web.call("JobService/GetJob", {"job_id": "nobody"})
    counted, got = await spans.one("jobwire.v1.JobService/CountJobs"), await spans.one("jobwire.v1.JobService/GetJob")
    assert counted.parent is not None
    assert f"{counted.parent.trace_id:032x}" == TRACE
    assert (got.parent, (got.attributes or {})["rpc.system"]) == (None, "connect_rpc")


async def test_a_refused_call_says_why_and_is_an_error_only_when_the_fault_is_ours(
    app: App, web: Web, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError(SECRET)

    await web.call("JobService/GetJob", {"job_id": "nobody"})
    span = await spans.one("jobwire.v1.JobService/GetJob")
    assert (span.attributes or {})["jobwire.reason"] == "JOB_NOT_FOUND"
    assert (span.attributes or {})["rpc.grpc.status_code"] == 5
    assert span.status.status_code is StatusCode.UNSET
    monkeypatch.setattr(app.store, "count", broken)
    await web.call("JobService/CountJobs")
    span = await spans.one("jobwire.v1.JobService/CountJobs")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "INTERNAL")
    assert SECRET not in span.to_json()


async def test_a_stream_is_a_span_from_its_opening_to_its_end(jobs: JobServiceAsyncStub, spans: Spans) -> None:
    stream = jobs.ClaimJob(api.ClaimJobRequest())
    await stream.initial_metadata()
    assert not spans.of("jobwire.v1.JobService/ClaimJob")
    stream.cancel()
    await spans.one("jobwire.v1.JobService/ClaimJob")


@STORES
async def test_a_job_keeps_its_trace_and_brings_it_to_its_worker(jobs: JobServiceAsyncStub, spans: Spans) -> None:
    own, bare = api.CreateJobRequest(job=Job(id="own", traceparent=OTHER)), api.CreateJobRequest(job=Job(id="bare"))
    await jobs.BatchCreateJobs(api.BatchCreateJobsRequest(requests=[own, bare]), metadata=(("traceparent", OUTER),))
    made = traceparent_of(await spans.one("jobwire.v1.JobService/BatchCreateJobs"))
    assert made.split("-")[1] == TRACE
    edit = api.UpdateJobRequest(job_id="own")
    edit.edit.job.labels["a"] = "b"
    edit.edit.update_mask.paths.append("labels")
    await jobs.UpdateJob(edit)
    claims = jobs.ClaimJob(api.ClaimJobRequest(max_jobs=2, max_in_flight=2))
    got = {each.job.id: each.job.traceparent async for event in claims for each in event.jobs.assignments}
    assert got == {"own": OTHER, "bare": made}


@STORES
async def test_a_create_that_is_repeated_in_another_trace_is_the_same(jobs: JobServiceAsyncStub) -> None:
    first = await jobs.CreateJob(api.CreateJobRequest(job=Job(id="j", type="t", traceparent=OUTER)))
    again = await jobs.CreateJob(api.CreateJobRequest(job=Job(id="j", type="t", traceparent=OTHER)))
    bare = await jobs.CreateJob(api.CreateJobRequest(job=Job(id="j", type="t")))
    assert [first.created, again.created, bare.created] == [True, False, False]
    assert again.job.traceparent == OUTER


async def test_what_is_no_traceparent_is_refused_and_not_repeated(web: Web) -> None:
    answer = await web.call("JobService/CreateJob", {"job": {"traceparent": SECRET}})
    assert (answer.status, answer.reason) == (400, "INVALID_FIELD")
    assert SECRET.encode() not in answer.body


# --- the worker ---------------------------------------------------------------------------------------------


@pytest.fixture
async def plain() -> AsyncIterator[str]:
    """A server that makes no spans; its address."""
    app = App(Config(store="memory://", listen="127.0.0.1:0", http="off", drain_timeout=1))
    yield await app.start()
    await app.stop()


@pytest.fixture
def traced(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> Spans:
    """This process's programs make spans: the provider of OpenTelemetry can be set once only."""
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
    return spans


async def test_a_run_is_a_span_with_a_link_to_the_trace_that_its_job_comes_from(plain: str, traced: Spans) -> None:
    seen: list[str] = []
    worker = Worker(plain)

    @worker.handler("outer")
    async def outer(context: JobContext) -> None:
        async with AsyncClient(plain) as client:
            await client.create("inner")

    @worker.handler("inner")
    def inner(context: JobContext) -> None:
        seen.append(_tracing.traceparent())  # in a thread
        worker.stop()

    async with AsyncClient(plain) as client:
        with traced.provider.get_tracer("test").start_as_current_span("request"):
            created = await client.create("outer", queue="default")
    async with asyncio.timeout(20):
        await worker.run()
    request, first, second = [traced.of(name) for name in ("request", "run outer", "run inner")]
    for run, cause in ((first[0], request[0]), (second[0], first[0])):
        [link] = run.links
        context = cause.get_span_context()
        assert context is not None
        assert (link.context.trace_id, link.context.span_id) == (context.trace_id, context.span_id)
        assert run.parent is None
        assert run.kind is SpanKind.CONSUMER
    assert seen == [traceparent_of(second[0])]
    attributes = first[0].attributes or {}
    assert attributes["messaging.message.id"] == created.id
    assert (attributes["jobwire.job.attempt"], attributes["jobwire.worker.id"]) == (1, worker.id)


async def test_a_run_that_fails_is_an_error_and_one_that_is_given_back_is_none(plain: str, traced: Spans) -> None:
    worker = Worker(plain)

    @worker.handler("fails")
    async def fails(context: JobContext) -> None:
        raise ValueError("no")

    @worker.handler("released")
    async def released(context: JobContext) -> None:
        worker.stop()
        raise Release(delay=60)

    async with AsyncClient(plain) as client:
        await client.create("fails", priority=1)
        await client.create("released", priority=10)
    async with asyncio.timeout(20):
        await worker.run()
    [failed], [back] = traced.of("run fails"), traced.of("run released")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "ValueError")
    assert [event.name for event in failed.events] == ["exception"]
    assert (back.status.status_code, back.events, back.links) == (StatusCode.UNSET, (), ())


async def test_where_nobody_keeps_spans_none_is_made(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def tracer(*_: object) -> NoReturn:
        raise AssertionError("a span that nobody keeps")

    monkeypatch.setattr(trace, "get_tracer", tracer)
    worker = Worker(plain)

    @worker.default_handler
    async def handle(context: JobContext) -> str:
        worker.stop()
        return "ran"

    async with AsyncClient(plain) as client:
        created = await client.create("job")
        async with asyncio.timeout(20):
            await worker.run()
        assert (await client.get(created.id)).result.text == "ran"


def test_without_opentelemetry_the_client_makes_jobs_all_the_same() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from jobwire_client import _tracing, models\n"
        "assert not _tracing.HAS_TRACES\n"
        "job = models.new_job('a')\n"
        "assert not job.traceparent\n"
        "assert not _tracing.are_kept()\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


# --- where they go ------------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Takes what is sent to it: its address, and what came."""
    came: list[ExportTraceServiceRequest] = []

    class Collecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collecting)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_sends_its_spans_where_the_environment_says(
    collector: tuple[str, list[ExportTraceServiceRequest]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, came = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    server = ServerProcess("memory://", tmp_path / "server.log")
    server.start()
    try:
        with grpc.insecure_channel(server.address) as channel:
            JobServiceStub(channel).CountJobs(api.CountJobsRequest())
    finally:
        assert server.terminate() == 0
    [resource] = [resource for request in came for resource in request.resource_spans]
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert named["service.name"] == "jobwire"
    assert "jobwire.v1.JobService/CountJobs" in [span.name for scope in resource.scope_spans for span in scope.spans]


def test_where_nobody_collects_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in traces.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert traces.from_environment() is None


def test_a_server_that_cannot_make_them_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING):
        assert traces.from_environment() is None
    assert "install jobwire[otel]" in caplog.text
