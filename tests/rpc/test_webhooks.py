"""Webhooks over the wire: every way of ending is told to whoever asked, signed, and as often as it takes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.json_format import Parse
from grpc import StatusCode
from tests.conftest import ENGINES
from tests.receiver import Received, Receiver, receiving
from tests.rpc.calls import FOREVER, claim_one, complete, counted, create, fail, get, listed, refusal
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import queue_service_pb2 as queue_api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import (
    JOB_STATE_CANCELED,
    JOB_STATE_COMPLETED,
    JOB_STATE_EXPIRED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    WEBHOOK_EVENT_COMPLETED,
    WEBHOOK_EVENT_FAILED,
    WEBHOOK_EVENT_UNSPECIFIED,
    Job,
    Payload,
    RetryPolicy,
    Webhook,
    WebhookEvent,
)
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.domain import webhook as domain
from jobwire_server.domain.webhook import DELIVERIES
from jobwire_server.service import webhooks

KEY: Final = bytes(range(32))
OLD_KEY: Final = bytes(range(32, 64))


class SecretsFile:
    """What the server reads its signing secrets from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def hold(self, **secrets: Sequence[bytes]) -> None:
        lines = (f"{name} = {[spelled(key) for key in keys]}\n" for name, keys in secrets.items())
        self.path.write_text("".join(lines))
        self.path.chmod(0o600)


def spelled(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def secrets(tmp_path: Path) -> SecretsFile:
    file = SecretsFile(tmp_path / "secrets.toml")
    file.hold(mine=[KEY], turning=[KEY, OLD_KEY])
    return file


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that failed is tried again in a moment, not in five seconds."""
    monkeypatch.setattr(domain, "_RETRY", RetryPolicyOf(initial_delay=10_000, max_delay=10_000, max_retries=30))


def RetryPolicyOf(**fields: int) -> object:
    from jobwire_server.domain.job import RetryPolicy as Policy

    return Policy(**fields)


@asynccontextmanager
async def serving(
    store_url: str, *, allow: str = "127.0.0.0/8,::1", secrets: Path | None = None
) -> AsyncIterator[Wire]:
    config = Config(
        store=store_url,
        listen="127.0.0.1:0",
        drain_timeout=1,
        http="off",
        webhook_allow=allow,
        webhook_secrets=str(secrets or ""),
    )
    app = App(config)
    address = await app.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Wire(app, address, channel)
    finally:
        await app.stop()


@pytest.fixture
async def hooked(store_url: str, secrets: SecretsFile) -> AsyncIterator[Wire]:
    """A server that may speak to receivers on this machine."""
    async with serving(store_url, secrets=secrets.path) as wire:
        yield wire


async def received(receiver: Receiver, number: int = 1) -> list[Received]:
    return await asyncio.to_thread(receiver.until, number)


async def moment() -> None:
    """Nobody tells what becomes of a delivery."""
    await asyncio.sleep(0.01)


async def deliveries(wire: Wire) -> list[str]:
    return await listed(wire, queues=[DELIVERIES])


async def until_none(wire: Wire) -> None:
    """Returns when every delivery was told and is gone."""
    async with asyncio.timeout(FOREVER):
        while await deliveries(wire):
            await moment()


def told(one: Received) -> Job:
    return Parse(one.body, Job())


# --- every way of ending ------------------------------------------------------------------------------------


async def test_a_completed_job_is_told_as_it_is_with_its_result(hooked: Wire, receiver: Receiver) -> None:
    await create(
        hooked, "j", payload=Payload(text="work"), labels={"k": "v"}, user_id="ann", webhook=Webhook(url=receiver.url)
    )
    await hooked.jobs.UpdateJob(complete(await claim_one(hooked), "the result"))
    (one,) = await received(receiver)
    assert (one.path, one.headers["content-type"]) == ("/hook", "application/json")
    job = await get(hooked, "j")
    job.ClearField("purge_time")
    assert told(one) == job, "to the microsecond"
    assert (one.job["state"], one.job["result"]["text"]) == ("JOB_STATE_COMPLETED", "the result")
    await until_none(hooked)


async def test_a_failed_job_is_told_once_its_retries_are_used_up(hooked: Wire, receiver: Receiver) -> None:
    policy = RetryPolicy(max_retries=1, initial_delay=seconds(0))
    await create(hooked, "j", retry_policy=policy, webhook=Webhook(url=receiver.url))
    await hooked.jobs.UpdateJob(fail(await claim_one(hooked)))
    await hooked.jobs.UpdateJob(fail(await claim_one(hooked)))
    (one,) = await received(receiver)
    job = await get(hooked, "j")
    job.ClearField("purge_time")
    assert told(one) == job
    assert [attempt.error.code for attempt in told(one).attempts] == ["Oops", "Oops"]
    await until_none(hooked)
    assert len(receiver.received) == 1


async def ended_by_cancel(wire: Wire, receiver: Receiver) -> None:
    await create(wire, "j", webhook=Webhook(url=receiver.url))
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="j"))


async def ended_by_cancel_of_many(wire: Wire, receiver: Receiver) -> None:
    await create(wire, "j", webhook=Webhook(url=receiver.url), type="t")
    request = api.CancelJobsRequest()
    request.filter.types.append("t")
    assert (await wire.jobs.CancelJobs(request)).changed_count == 1


async def ended_by_release(wire: Wire, receiver: Receiver) -> None:
    """Of a running job that was asked to stop."""
    await create(wire, "j", webhook=Webhook(url=receiver.url))
    assignment = await claim_one(wire)
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
    await wire.jobs.UpdateJob(api.UpdateJobRequest(job_id="j", token=assignment.token, release=api.ReleaseJob()))


async def ended_by_grace(wire: Wire, receiver: Receiver) -> None:
    """The reaper's doing."""
    await create(wire, "j", webhook=Webhook(url=receiver.url))
    await claim_one(wire)
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="j", grace=seconds(0)))


async def ended_by_hand_back(wire: Wire, receiver: Receiver) -> None:
    """Its worker has gone before it acknowledged what it was asked to stop at once."""
    await create(wire, "j", webhook=Webhook(url=receiver.url))
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    async for event in stream:
        if event.HasField("jobs"):
            break
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
    stream.cancel()


async def ended_by_expiry(wire: Wire, receiver: Receiver) -> None:
    job = Job(id="j", webhook=Webhook(url=receiver.url))
    job.expire_time.FromNanoseconds(time.time_ns() + 200_000_000)
    await wire.jobs.CreateJob(api.CreateJobRequest(job=job))


async def ended_by_lost_leases(wire: Wire, receiver: Receiver) -> None:
    policy = RetryPolicy(max_interruptions=0)
    await create(wire, "j", retry_policy=policy, webhook=Webhook(url=receiver.url))
    await claim_one(wire)
    await wire.jobs.RecoverStuckJobs(api.RecoverStuckJobsRequest(max_retries=0))
    await asyncio.sleep(1.01)  # what is stuck for a second has to be
    request = api.RecoverStuckJobsRequest(stuck_for=seconds(1))
    assert (await wire.jobs.RecoverStuckJobs(request)).failed_count == 1


WAYS: Final = {
    ended_by_cancel: JOB_STATE_CANCELED,
    ended_by_cancel_of_many: JOB_STATE_CANCELED,
    ended_by_release: JOB_STATE_CANCELED,
    ended_by_grace: JOB_STATE_CANCELED,
    ended_by_hand_back: JOB_STATE_CANCELED,
    ended_by_expiry: JOB_STATE_EXPIRED,
    ended_by_lost_leases: JOB_STATE_FAILED,
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.removeprefix("ended_by_"))
async def test_every_other_way_of_ending_is_told_as_well(
    hooked: Wire, receiver: Receiver, way: Callable[[Wire, Receiver], object]
) -> None:
    await way(hooked, receiver)  # type: ignore[misc]  # each is a coroutine
    (one,) = await received(receiver)
    job = await get(hooked, "j")
    job.ClearField("purge_time")
    assert told(one) == job
    assert job.state == WAYS[way]  # type: ignore[index]  # the same functions
    await until_none(hooked)


async def test_a_job_that_goes_at_its_end_is_told_whole(hooked: Wire, receiver: Receiver) -> None:
    await create(hooked, "j", retention=seconds(0), webhook=Webhook(url=receiver.url))
    await hooked.jobs.UpdateJob(complete(await claim_one(hooked), "and gone"))
    (one,) = await received(receiver)
    assert one.job["result"]["text"] == "and gone"
    assert await refusal(get(hooked, "j")) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_only_the_ends_that_are_asked_for_are_told(hooked: Wire, receiver: Receiver) -> None:
    async def ended(id: str, events: Sequence[WebhookEvent.ValueType], *, well: bool) -> None:
        await create(hooked, id, webhook=Webhook(url=f"{receiver.url}/{id}", events=events))
        assignment = await claim_one(hooked)
        await hooked.jobs.UpdateJob(complete(assignment) if well else fail(assignment, permanent=True))

    for events in ([WEBHOOK_EVENT_COMPLETED], [WEBHOOK_EVENT_FAILED], []):
        for well in (True, False):
            await ended(f"{len(events) and WebhookEvent.Name(events[0])[14:]}-{well}", events, well=well)
    await received(receiver, 4)
    await until_none(hooked)
    paths = {one.path.removeprefix("/hook/") for one in receiver.received}
    assert paths == {"COMPLETED-True", "FAILED-False", "0-True", "0-False"}


async def test_a_replayed_job_is_told_again_when_it_ends_again(hooked: Wire, receiver: Receiver) -> None:
    await create(hooked, "j", webhook=Webhook(url=receiver.url))
    await hooked.jobs.UpdateJob(fail(await claim_one(hooked), permanent=True))
    await hooked.jobs.RetryJob(api.RetryJobRequest(job_id="j"))
    await hooked.jobs.UpdateJob(complete(await claim_one(hooked)))
    first, second = await received(receiver, 2)
    states = {first.job["state"], second.job["state"]}
    assert states == {"JOB_STATE_FAILED", "JOB_STATE_COMPLETED"}
    assert first.headers["webhook-id"] != second.headers["webhook-id"]


async def test_completions_of_a_batch_are_told_each_and_answered_as_ever(hooked: Wire, receiver: Receiver) -> None:
    for n in range(20):
        await create(hooked, f"j{n:02}", **({"webhook": Webhook(url=receiver.url)} if n % 2 else {}))
    assignments = [await claim_one(hooked) for _ in range(20)]
    batch = api.BatchUpdateJobsRequest(requests=[complete(each) for each in assignments])
    answer = await hooked.jobs.BatchUpdateJobs(batch)
    assert [each.response.job.state for each in answer.results] == [JOB_STATE_COMPLETED] * 20
    again = await hooked.jobs.BatchUpdateJobs(batch)
    assert all(each.response.already_applied for each in again.results)
    assert {one.job["id"] for one in await received(receiver, 10)} == {f"j{n:02}" for n in range(1, 20, 2)}
    await until_none(hooked)
    assert len(receiver.received) == 10


# --- the signature ------------------------------------------------------------------------------------------


def signatures(one: Received, *keys: bytes) -> set[str]:
    content = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    return {f"v1,{base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()}" for key in keys}


@pytest.mark.parametrize(("secret", "keys"), [("mine", [KEY]), ("turning", [KEY, OLD_KEY])])
async def test_a_delivery_is_signed_by_the_secret_that_is_named(
    hooked: Wire, receiver: Receiver, secret: str, keys: list[bytes]
) -> None:
    await create(hooked, "j", webhook=Webhook(url=receiver.url, secret_ref=secret))
    await hooked.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
    (one,) = await received(receiver)
    assert set(one.headers["webhook-signature"].split()) == signatures(one, *keys)
    assert abs(int(one.headers["webhook-timestamp"]) - time.time()) < 60


async def test_without_a_secret_there_is_no_signature(hooked: Wire, receiver: Receiver) -> None:
    await create(hooked, "j", webhook=Webhook(url=receiver.url))
    await hooked.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
    (one,) = await received(receiver)
    assert "webhook-signature" not in one.headers
    assert one.headers["webhook-id"]


async def test_a_secret_that_changes_in_its_file_signs_from_then_on(
    hooked: Wire, receiver: Receiver, secrets: SecretsFile
) -> None:
    secrets.hold(mine=[OLD_KEY])
    await create(hooked, "j", webhook=Webhook(url=receiver.url, secret_ref="mine"))
    await hooked.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
    (one,) = await received(receiver)
    assert one.headers["webhook-signature"] in signatures(one, OLD_KEY)


async def test_a_delivery_whose_secret_is_missing_waits_for_it(
    hooked: Wire, receiver: Receiver, secrets: SecretsFile
) -> None:
    await create(hooked, "j", webhook=Webhook(url=receiver.url, secret_ref="mine"))
    secrets.hold()
    await hooked.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
    await error_of_delivery(hooked, "SECRET_MISSING")
    assert receiver.received == []
    secrets.hold(mine=[KEY])
    (one,) = await received(receiver)
    assert one.headers["webhook-signature"] in signatures(one, KEY)


# --- receivers that do not take it --------------------------------------------------------------------------


async def error_of_delivery(wire: Wire, code: str) -> Job:
    """The delivery, once it has failed with that code."""
    async with asyncio.timeout(FOREVER):
        while True:
            for id in await deliveries(wire):
                job = await get(wire, id)
                if job.error.code == code:
                    return job
            await moment()


async def canceled(wire: Wire, url: str) -> None:
    await create(wire, "j", webhook=Webhook(url=url))
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="j"))


async def test_a_receiver_that_was_down_is_told_when_it_is_up(hooked: Wire) -> None:
    with receiving() as gone:
        port, url = gone.port, gone.url
    await canceled(hooked, url)
    await error_of_delivery(hooked, "UNANSWERED")
    with receiving(port) as back:
        (one,) = await received(back)
    assert one.job["id"] == "j"
    await until_none(hooked)


@pytest.mark.parametrize("status", [500, 503, 400, 404, 301, 302])
async def test_an_answer_that_is_no_success_is_tried_again_under_the_same_id(
    hooked: Wire, receiver: Receiver, status: int
) -> None:
    receiver.location = receiver.url + "/elsewhere"
    receiver.answer = lambda _: status if len(receiver.received) < 3 else 200
    await canceled(hooked, receiver.url)
    posts = await received(receiver, 3)
    await until_none(hooked)
    assert len({one.headers["webhook-id"] for one in posts}) == 1
    assert {one.path for one in receiver.received} == {"/hook"}, "no redirect is followed"
    assert len(receiver.received) == 3


async def test_a_receiver_that_is_gone_for_good_is_told_no_more(hooked: Wire, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    await canceled(hooked, receiver.url)
    delivery = await error_of_delivery(hooked, "HTTP_410")
    assert (delivery.state, len(receiver.received)) == (JOB_STATE_FAILED, 1)
    assert (delivery.labels["job_id"], delivery.labels["event"]) == ("j", "CANCELED")


async def test_a_dead_delivery_can_be_replayed_by_a_person(hooked: Wire, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    await canceled(hooked, receiver.url)
    await error_of_delivery(hooked, "HTTP_410")
    receiver.answer = lambda _: 200
    request = api.RetryJobsRequest()
    request.filter.queues.append(DELIVERIES)
    request.filter.states.append(JOB_STATE_FAILED)
    async with asyncio.timeout(FOREVER):
        while not (await hooked.jobs.RetryJobs(request)).changed_count:
            await moment()
    await received(receiver, 2)
    await until_none(hooked)


async def test_a_slow_receiver_is_given_up_and_tried_again_while_others_are_told(
    hooked: Wire, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ANSWER_WITHIN", 0.3)
    with receiving() as slow:

        def dawdle(_: Received) -> int:
            if len(slow.received) == 1:
                time.sleep(1)  # longer than it is waited for
            return 200

        slow.answer = dawdle
        await canceled(hooked, slow.url)
        await received(slow)
        await create(hooked, "k", webhook=Webhook(url=receiver.url))
        await hooked.jobs.CancelJob(api.CancelJobRequest(job_id="k"))
        await received(receiver)
        first, second = (await received(slow, 2))[:2]
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        await until_none(hooked)


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "x" * 64 + ".example"])
async def test_a_name_that_means_nothing_is_no_receiver(hooked: Wire, host: str) -> None:
    await canceled(hooked, f"http://{host}/")
    delivery = await error_of_delivery(hooked, "UNANSWERED")
    assert delivery.error.message == "its name cannot be resolved"


async def test_what_is_no_http_is_no_answer(hooked: Wire) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" + b"x" * 100_000)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        await canceled(hooked, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        delivery = await error_of_delivery(hooked, "UNANSWERED")
    assert "SSH" not in str(delivery), "what it said stays there"


# --- where it may not go ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://10.1.2.3/",
        "http://192.168.1.1:8080/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://0.0.0.0/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
    ],
)
async def test_an_address_of_this_machine_or_its_network_is_refused_at_the_create(wire: Wire, url: str) -> None:
    code, reason = await refusal(create(wire, "j", webhook=Webhook(url=url)))
    assert (code, reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433"])
async def test_a_name_is_judged_by_the_address_that_it_has_when_it_is_called(
    store_url: str, receiver: Receiver, host: str
) -> None:
    async with serving(store_url, allow="") as wire:
        await canceled(wire, f"http://{host}:{receiver.port}/")
        delivery = await error_of_delivery(wire, "ADDRESS_REFUSED")
        assert delivery.state == JOB_STATE_FAILED
    assert receiver.received == []


async def test_a_network_that_is_allowed_opens_that_network_only(store_url: str, receiver: Receiver) -> None:
    async with serving(store_url, allow="127.0.0.0/30") as wire:
        await create(wire, "j", webhook=Webhook(url=receiver.url))
        await wire.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
        await received(receiver)
        refused = await refusal(create(wire, "k", webhook=Webhook(url="http://127.0.0.9/")))
        assert refused == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        await until_none(wire)


# --- what is refused at the create --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "webhook",
    [
        Webhook(),
        Webhook(url="ftp://example.org/"),
        Webhook(url="example.org/hook"),
        Webhook(url="http:///hook"),
        Webhook(url="https://ann:secret@example.org/"),
        Webhook(url="https://example.org/#there"),
        Webhook(url="https://example.org/a b"),
        Webhook(url="https://exämple.org/"),
        Webhook(url="https://example.org:99999/"),
        Webhook(url="https://example.org/\r\nx: y"),
        Webhook(url="https://example.org/", secret_ref="unknown"),
        Webhook(url="https://example.org/", secret_ref="no name"),
        Webhook(url="https://example.org/", events=[WEBHOOK_EVENT_UNSPECIFIED]),
    ],
    ids=str,
)
async def test_a_webhook_that_cannot_be_called_is_refused(hooked: Wire, webhook: Webhook) -> None:
    code, reason = await refusal(create(hooked, "j", webhook=webhook))
    assert (code, reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_url_that_is_too_long_is_refused(hooked: Wire) -> None:
    webhook = Webhook(url="https://example.org/" + "x" * 2048)
    assert await refusal(create(hooked, "j", webhook=webhook)) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")


# --- the server's own queue ---------------------------------------------------------------------------------


async def test_deliveries_are_shown_to_those_who_ask_for_them_and_to_nobody_else(
    hooked: Wire, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 410
    await canceled(hooked, receiver.url)
    delivery = (await error_of_delivery(hooked, "HTTP_410")).id
    assert await deliveries(hooked) == [delivery]
    assert await counted(hooked, queues=[DELIVERIES]) == {JOB_STATE_FAILED: 1}
    own = (await hooked.queues.GetQueue(queue_api.GetQueueRequest(name=DELIVERIES))).queue
    assert own.name == DELIVERIES
    assert await listed(hooked) == await listed(hooked, states=[JOB_STATE_FAILED, JOB_STATE_CANCELED]) == ["j"]
    assert await listed(hooked, types=["webhook"]) == []
    assert await counted(hooked) == {JOB_STATE_CANCELED: 1}
    assert await counted(hooked, types=["webhook"]) == {}
    queues = (await hooked.queues.ListQueues(queue_api.ListQueuesRequest())).queues
    assert [queue.name for queue in queues] == ["default"]
    workers = (await hooked.workers.ListWorkers(worker_api.ListWorkersRequest())).workers
    assert list(workers) == []
    everything = api.DeleteJobsRequest()
    everything.filter.states.append(JOB_STATE_FAILED)
    assert (await hooked.jobs.DeleteJobs(everything)).changed_count == 0


async def test_nobody_else_uses_the_servers_names(hooked: Wire) -> None:
    invalid = (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert await refusal(create(hooked, "j", queue=DELIVERIES)) == invalid
    assert await refusal(claim_stream(hooked, queues=[DELIVERIES])) == invalid
    identity = WorkerIdentity(id="jobwire.me")
    assert await refusal(hooked.workers.Heartbeat(worker_api.HeartbeatRequest(worker=identity))) == invalid
    assert (await create(hooked, "k", queue="jobwire")).state == JOB_STATE_QUEUED, "near to it"


async def claim_stream(wire: Wire, **asked: object) -> None:
    async for _ in wire.jobs.ClaimJob(api.ClaimJobRequest(**asked)):  # type: ignore[arg-type]  # fields of the request
        return


LASTING: Final = pytest.mark.parametrize("engine", [each for each in ENGINES if each != "memory"], indirect=True)
"""Nothing is left of the others when their server has ended."""


# --- starts and ends ----------------------------------------------------------------------------------------


@LASTING
async def test_a_server_that_starts_tells_what_was_left(
    store_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(webhooks, "AT_ONCE", 0)
        async with serving(store_url) as wire:
            await canceled(wire, receiver.url)
    assert receiver.received == []
    async with serving(store_url) as wire:
        (one,) = await received(receiver)
        await until_none(wire)
    assert one.job["id"] == "j"


@LASTING
async def test_a_server_that_drains_finishes_the_deliveries_under_way(store_url: str, receiver: Receiver) -> None:
    def slowly(_: Received) -> int:
        time.sleep(0.3)  # the delivery is under way while the server drains
        return 200

    receiver.answer = slowly
    async with serving(store_url) as wire:
        await canceled(wire, receiver.url)
        await received(receiver)
    # The store is checked by its fixture; that it was settled shows in nothing being delivered again.
    async with serving(store_url) as wire:
        assert await deliveries(wire) == []


async def test_a_store_that_tells_nobody_gets_no_worker_of_the_server(hooked: Wire) -> None:
    await create(hooked, "j")
    await hooked.jobs.UpdateJob(complete(await claim_one(hooked)))
    assert hooked.app._webhooks._worker_id not in {
        each.info.id for each in (await hooked.app.store.workers(ids=[hooked.app._webhooks._worker_id])).workers
    }


# --- the page -----------------------------------------------------------------------------------------------


async def test_the_receiver_of_the_page_takes_what_we_send_and_nothing_else(
    hooked: Wire, receiver: Receiver, repository: Path
) -> None:
    verify = verifier_of((repository / "docs" / "webhooks.md").read_text())
    await create(hooked, "j", webhook=Webhook(url=receiver.url, secret_ref="turning"))
    await hooked.jobs.CancelJob(api.CancelJobRequest(job_id="j"))
    (one,) = await received(receiver)
    verify(one.headers, one.body, spelled(KEY))
    verify(one.headers, one.body, spelled(OLD_KEY))
    stale = one.headers | {"webhook-timestamp": str(int(time.time()) - 301)}
    for headers, body, key in (
        (one.headers, one.body + b" ", KEY),
        (one.headers | {"webhook-id": "other"}, one.body, KEY),
        (one.headers, one.body, bytes(32)),
        (stale, one.body, KEY),
    ):
        with pytest.raises(ValueError, match=r"signed by|too old"):
            verify(headers, body, spelled(key))


def verifier_of(page: str) -> Callable[[dict[str, str], bytes, str], None]:
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    verify: Callable[[dict[str, str], bytes, str], None] = names["verify"]
    return verify
