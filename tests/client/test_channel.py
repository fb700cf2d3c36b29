"""How servers are named, trusted and told who is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from tests.server_process import ServerProcess

from jobwire.v1.admin_service_pb2 import GetServerInfoResponse
from jobwire_client import AsyncClient, Worker
from jobwire_client._channel import Connection, ConnectOptions

KEY = b"-----BEGIN PRIVATE KEY-----"


class Doorman:
    """A server that only notes what comes with each call."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str | bytes]] = []
        self.address = ""

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self.seen.append(dict(context.invocation_metadata() or ()))
        return GetServerInfoResponse().SerializeToString()


@pytest_asyncio.fixture
async def doorman() -> AsyncIterator[Doorman]:
    doorman = Doorman()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(doorman.answer)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("jobwire.v1.AdminService", {"GetServerInfo": handler}),)
    )
    doorman.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield doorman
    await server.stop(None)


async def test_a_token_goes_with_each_call(doorman: Doorman) -> None:
    async with AsyncClient(doorman.address, token="s3cret") as client:
        await client.server_info()
        await client.server_info()
    assert [seen["authorization"] for seen in doorman.seen] == ["Bearer s3cret"] * 2


async def test_without_a_token_there_is_nothing_to_see(doorman: Doorman) -> None:
    async with AsyncClient(doorman.address) as client:
        await client.server_info()
    assert "authorization" not in doorman.seen[0]


async def test_of_several_servers_the_first_that_answers_is_used(shared_server: ServerProcess) -> None:
    async with AsyncClient(f"127.0.0.1:1, {shared_server.address}") as client:
        assert (await client.server_info()).instance_id


@pytest.mark.parametrize(
    ("target", "problem"),
    [("one.example:1,two.example:2", "IP:PORT"), ("10.0.0.1:1,[::1]:2", "do not mix")],
)
def test_a_list_that_grpc_could_not_use_is_refused(target: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Worker(target)


def test_certificates_turn_tls_on(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"-----BEGIN CERTIFICATE-----")
    assert Connection.to("x:1").credentials is None
    assert Connection.to("x:1", tls=True).credentials is not None
    assert Connection.to("x:1", ca=ca).credentials is not None
    assert Connection.to("x:1", ca=str(ca), cert=b"-----", key=KEY).credentials is not None


@pytest.mark.parametrize(
    ("options", "problem"), [({"key": KEY}, "belong together"), ({"ca": b"-----", "tls": False}, "is off")]
)
def test_half_a_wish_for_tls_is_a_mistake(options: ConnectOptions, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Connection.to("x:1", **options)


def test_a_file_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AsyncClient("x:1", ca=tmp_path / "none.pem")
