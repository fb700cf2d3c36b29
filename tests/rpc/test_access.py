"""Who may call what, over a port: each role, each RPC, and everything that is said to those who may not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from grpc_status import rpc_status
from tests.rpc.conftest import Wire
from tests.rpc.standins import failure, reason
from tests.rpc.test_stream_limit import claim, failure_of, opened
from tests.rpc.test_walk import METHODS, servicers

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import queue_service_pb2 as queue_api
from jobwire.v1.job_pb2 import Job, Payload
from jobwire.v1.queue_pb2 import Queue
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc import interceptors
from jobwire_server.rpc.access import ROLES, Access
from jobwire_server.rpc.server import Server
from jobwire_server.service.principals import Principals, Role, entry

PATHS: Final = [f"/{method.containing_service.full_name}/{method.name}" for method in METHODS]
LIMIT: Final = 2


def token(role: Role) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer of-{role}"),)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A principal for each role, of its name."""
    path = tmp_path / "tokens.toml"
    path.write_text("\n".join(entry(f"the-{role}", [role], f"of-{role}") for role in Role))
    path.chmod(0o600)
    return path


@pytest.fixture
async def channel(tokens: Path) -> AsyncIterator[Any]:
    """To a server whose services are none. Untyped: the stubs know no channel that carries plain bytes."""
    server = Server(servicers(), limits=Limits(), access=Access(Principals(tokens)))
    port = await server.start("127.0.0.1:0")
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(grace=1)


@pytest.fixture
async def wire(tokens: Path) -> AsyncIterator[Wire]:
    limits = Limits(streams_per_principal=LIMIT)
    app = App(
        Config(store="memory://", listen="127.0.0.1:0", http="off", drain_timeout=1, limits=limits, tokens=str(tokens))
    )
    address = await app.start()
    async with aio.insecure_channel(address) as channel:
        yield Wire(app, address, channel)
    await app.stop()


def give_admin(tokens: Path, text: str) -> None:
    """That token, and nobody else any."""
    tokens.write_text(entry("the-admin", [Role.ADMIN], text))


def take_from_worker(tokens: Path, *, token: bool) -> None:
    """Its token, or only its role."""
    shown = "another" if token else "of-worker"
    tokens.write_text(entry("the-worker", [Role.VIEWER], shown) + entry("the-admin", [Role.ADMIN], "of-admin"))


async def ask(channel: Any, path: str, raw: bytes, metadata: Sequence[tuple[str, str]] = ()) -> aio.AioRpcError | None:
    """The error that these bytes are answered with; None when the call is OK."""
    method = METHODS[PATHS.index(path)]
    try:
        if method.server_streaming:
            async for _ in channel.unary_stream(path)(raw, timeout=10, metadata=metadata):
                pass
        else:
            await channel.unary_unary(path)(raw, timeout=10, metadata=metadata)
    except aio.AioRpcError as error:
        return error
    return None


def test_the_table_of_roles_has_each_rpc_and_no_other() -> None:
    assert set(ROLES) - {"/metrics"} == set(PATHS)
    assert all(Role.ADMIN in roles for roles in ROLES.values()), "an admin may do everything"


@pytest.mark.parametrize("path", PATHS, ids=[path.removeprefix("/jobwire.v1.") for path in PATHS])
async def test_each_role_may_do_what_the_table_says_and_nothing_else(channel: Any, path: str) -> None:
    for role in Role:
        error = await ask(channel, path, b"", token(role))
        if role in ROLES[path]:
            assert error is None or reason(error) in {"INVALID_FIELD", "INTERNAL"}, f"{role} was not let in"
        else:
            assert error is not None
            assert (error.code(), reason(error)) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), role
            assert (error.details() or "").startswith(f"the-{role} is {role}, and {path.rpartition('/')[2]} is for ")
    for shown in ([], [("authorization", "Bearer wrong")], [("authorization", "of-admin")]):
        error = await ask(channel, path, b"", shown)
        assert error is not None
        assert (error.code(), reason(error)) == (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"), shown


async def test_an_rpc_that_the_table_lacks_is_nobodys(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/jobwire.v1.JobService/GetJob"
    monkeypatch.delitem(cast("dict[str, Any]", ROLES), path)
    error = await ask(channel, path, b"", token(Role.ADMIN))
    assert error is not None
    assert error.details() == "the-admin is admin, and GetJob is for nobody"


@pytest.mark.parametrize("metadata", [(), token(Role.VIEWER)], ids=["unknown", "of another role"])
@pytest.mark.parametrize("name", ["CreateJob", "ClaimJob"])
async def test_who_may_not_call_is_told_before_the_message_is_read(
    channel: Any, name: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    error = await ask(channel, f"/jobwire.v1.JobService/{name}", b"\xff no message", metadata)
    assert error is not None
    assert reason(error) == ("PERMISSION_DENIED" if metadata else "UNAUTHENTICATED")


async def test_a_refusal_names_who_was_refused_to_programs(channel: Any) -> None:
    error = await ask(channel, "/jobwire.v1.JobService/CancelJobs", b"", token(Role.WORKER))
    [detail] = rpc_status.from_call(cast("grpc.Call", error)).details
    assert b"the-worker" in detail.value


async def test_anybody_may_ask_whether_it_is_well(channel: Any) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == serving
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == serving
    watch.cancel()


async def test_whoever_is_known_may_ask_for_the_api(channel: Any) -> None:
    stub: Any = ServerReflectionStub(channel)
    asked = [ServerReflectionRequest(list_services="")]
    with pytest.raises(aio.AioRpcError) as refused:
        async for _ in stub.ServerReflectionInfo(iter(asked)):
            pass
    assert (refused.value.code(), reason(refused.value)) == (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    for role in Role:
        [answer] = [each async for each in stub.ServerReflectionInfo(iter(asked), metadata=token(role))]
        assert "jobwire.v1.JobService" in {each.name for each in answer.list_services_response.service}


async def test_a_token_of_the_file_as_it_is_now_is_what_counts(wire: Wire, tokens: Path) -> None:
    request = api.GetJobRequest(job_id="j")
    assert reason(await failure(wire.jobs.GetJob(request, metadata=token(Role.ADMIN)))) == "JOB_NOT_FOUND"
    give_admin(tokens, "another")
    assert reason(await failure(wire.jobs.GetJob(request, metadata=token(Role.ADMIN)))) == "UNAUTHENTICATED"
    renewed = (("authorization", "Bearer another"),)
    assert reason(await failure(wire.jobs.GetJob(request, metadata=renewed))) == "JOB_NOT_FOUND"


@pytest.mark.parametrize("said", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
async def test_a_stream_ends_when_its_caller_may_have_it_no_more(
    wire: Wire, tokens: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(interceptors, "LET_IN_FOR", 0.05)
    worker, admin = await opened(wire, "w", token(Role.WORKER)), await opened(wire, "v", token(Role.ADMIN))
    take_from_worker(tokens, token=said == "UNAUTHENTICATED")
    assert reason(await failure_of(worker)) == said
    await wire.jobs.CreateJob(api.CreateJobRequest(job=Job(id="j")), metadata=token(Role.ADMIN))
    async for message in admin:
        if message.HasField("jobs"):
            break
    assert [each.job.id for each in message.jobs.assignments] == ["j"]
    admin.cancel()


async def test_request_ids_of_two_principals_never_meet(wire: Wire) -> None:
    async def create(role: Role, text: str) -> api.CreateJobResponse:
        request = api.CreateJobRequest(job=Job(payload=Payload(text=text)), request_id="r")
        return await wire.jobs.CreateJob(request, metadata=token(role))

    first, second = await create(Role.PRODUCER, "a"), await create(Role.ADMIN, "b")
    assert first.job.id != second.job.id
    again = await create(Role.PRODUCER, "a")
    assert (again.created, again.job.id) == (False, first.job.id)


async def test_each_principal_has_streams_of_its_own(wire: Wire) -> None:
    held = [await opened(wire, f"w{i}", token(Role.WORKER)) for i in range(LIMIT)]
    error = await failure_of(claim(wire, "late", token(Role.WORKER)))
    assert reason(error) == "TOO_MANY_STREAMS"
    assert error.details() == f"this server serves at most {LIMIT} streams of the-worker"
    held.append(await opened(wire, "other", token(Role.ADMIN)))
    for stream in held:
        stream.cancel()
    async with asyncio.timeout(20):
        while wire.app._claims._admission.count:
            await wire.app.store.ping()


async def test_the_log_says_who_has_done_it(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    pause = queue_api.UpdateQueueRequest(
        queue=Queue(name="q", paused=True), update_mask=FieldMask(paths=["paused"]), allow_missing=True
    )
    with caplog.at_level(logging.INFO):
        await wire.queues.UpdateQueue(pause, metadata=token(Role.ADMIN))
        await failure(wire.queues.UpdateQueue(pause, metadata=token(Role.VIEWER)))
    done, refused = caplog.records
    assert cast("Any", done).fields["principal"] == "the-admin"
    assert "the-viewer" in refused.getMessage()
    assert "of-" not in caplog.text, "that would be a token"
