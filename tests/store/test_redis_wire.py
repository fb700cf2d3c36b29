"""Calls that share one connection: each gets its own answer, and an end is an end for all of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.valkey_process import Keyspace

from jobwire_server.store.redis import topology
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.wire import Wire

CERTIFICATE: Final = Path(__file__).parent.parent / "service" / "localhost.pem"


@pytest.fixture
async def wired(keyspace: Keyspace) -> AsyncIterator[Callable[..., Wire]]:
    """Makes a wire to that URL, or to the engine by a user that may say anything."""
    wires = []

    def wire(url: str = keyspace.url_of("default"), *, answer_within: float = 20.0) -> Wire:
        wires.append(Wire(Route(topology.parse(url)), answer_within=answer_within))
        return wires[-1]

    yield wire
    for each in wires:
        await each.close()


@contextmanager
def no_writes(keyspace: Keyspace) -> Iterator[None]:
    """The engine answers none."""
    with keyspace.server.client() as client:
        client.client_pause(20_000, all=False)
        try:
            yield
        finally:
            client.client_unpause()


async def test_each_of_many_calls_at_a_time_gets_its_own_answer(wired: Callable[..., Wire]) -> None:
    wire = wired()
    texts = [f"{n} {'x' * n}" for n in range(0, 20_000, 97)]
    assert await asyncio.gather(*(wire.call("ECHO", text) for text in texts)) == [text.encode() for text in texts]


async def test_a_refusal_is_one_call_s_own(wired: Callable[..., Wire]) -> None:
    wire = wired()
    calls = [("ECHO", "before"), ("NONSENSE",), ("EVALSHA", "0" * 40, "0"), ("ECHO", "after")]
    before, refused, unknown, after = await asyncio.gather(
        *(wire.call(*words) for words in calls), return_exceptions=True
    )
    assert (before, after) == (b"before", b"after")
    assert isinstance(refused, ResponseError)
    assert str(refused).startswith("unknown command")
    assert isinstance(unknown, NoScriptError)


async def test_the_answer_of_a_caller_that_left_goes_to_nobody_else(wired: Callable[..., Wire]) -> None:
    wire = wired()
    await wire.call("PING")
    leaver, stayer = asyncio.create_task(wire.call("ECHO", "left")), asyncio.create_task(wire.call("ECHO", "stayed"))
    await asyncio.sleep(0)
    assert not leaver.done(), "it had its answer before it left: the test proves nothing"
    leaver.cancel()
    assert await stayer == b"stayed"


async def test_when_one_is_not_answered_in_time_all_hear_so_and_the_next_call_connects_again(
    wired: Callable[..., Wire], keyspace: Keyspace
) -> None:
    wire = wired(answer_within=0.2)
    await wire.call("PING")
    with no_writes(keyspace):
        answers = await asyncio.gather(
            wire.call("ECHO", "read"), *(wire.call("DEL", "none") for _ in range(3)), return_exceptions=True
        )
    assert answers[0] == b"read"
    assert [type(answer) for answer in answers[1:]] == [TimeoutError] * 3
    assert await wire.call("ECHO", "again") == b"again"


async def test_when_the_engine_lets_go_all_hear_so_and_the_next_call_connects_again(
    wired: Callable[..., Wire], keyspace: Keyspace
) -> None:
    wire = wired()
    number = await wire.call("CLIENT", "ID")
    with no_writes(keyspace), keyspace.server.client() as client:
        waiting = [asyncio.create_task(wire.call("DEL", "none")) for _ in range(3)]
        await asyncio.sleep(0)  # they are sent
        client.client_kill_filter(_id=str(number))
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RedisConnectionError] * 3
    assert await wire.call("CLIENT", "ID") != number


async def test_all_who_wait_for_a_connection_hear_the_same_when_there_is_none(wired: Callable[..., Wire]) -> None:
    wire = wired("redis://127.0.0.1:1")
    failures = await asyncio.gather(*(wire.call("PING") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(failure, OSError) for failure in failures)
    assert len({str(failure) for failure in failures}) == 1


async def test_a_user_and_a_database_are_those_of_the_url(wired: Callable[..., Wire], keyspace: Keyspace) -> None:
    user = f"somebody-{keyspace.prefix}"
    database = 0 if keyspace.server.is_in_cluster else 3
    at = f"127.0.0.1:{keyspace.server.port}/{database}"
    with keyspace.server.client() as client:
        client.acl_setuser(user, enabled=True, passwords=["+p@ss/word"], categories=["+@all"], keys=["*"])
        try:
            wire = wired(f"redis://{user}:p%40ss%2Fword@{at}")
            assert await wire.call("ACL", "WHOAMI") == user.encode()
            assert f" db={database} ".encode() in await wire.call("CLIENT", "INFO")
            with pytest.raises(AuthenticationError):
                await wired(f"redis://{user}:another@{at}").call("PING")
        finally:
            client.acl_deluser(user)


async def test_an_operator_sees_whose_connections_they_are_where_the_user_may_say_so(
    wired: Callable[..., Wire], keyspace: Keyspace
) -> None:
    assert b" name=jobwire " in await wired().call("CLIENT", "INFO")
    user = f"silent-{keyspace.prefix}"
    with keyspace.server.client() as client:
        client.acl_setuser(user, enabled=True, nopass=True, commands=["+ping"])
        try:
            assert await wired(f"redis://{user}:x@127.0.0.1:{keyspace.server.port}").call("PING") == b"PONG"
        finally:
            client.acl_deluser(user)


async def test_an_engine_behind_tls_is_reached_when_its_certificate_is_known(
    wired: Callable[..., Wire], keyspace: Keyspace
) -> None:
    async with _behind_tls(keyspace.server.port) as port:
        wire = wired(f"rediss://localhost:{port}/0?ssl_ca_certs={CERTIFICATE}")
        assert await wire.call("PING") == b"PONG"
        await wire.close()
        with pytest.raises((RedisError, OSError), match="certificate verify failed"):
            await wired(f"rediss://localhost:{port}/0").call("PING")
        with pytest.raises((RedisError, OSError), match="not valid for"):
            await wired(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={CERTIFICATE}").call("PING")


@asynccontextmanager
async def _behind_tls(engine_port: int) -> AsyncIterator[int]:
    """A port that speaks TLS and hands on what it hears."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", engine_port)
        try:
            ways = [asyncio.create_task(copy(reader, engine_writer)), asyncio.create_task(copy(engine_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            engine_writer.close()
            writer.close()

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
