"""What a page in a browser of this machine cannot do to the server."""

from __future__ import annotations

import pytest
from tests.rpc.standins import running
from tests.web.conftest import Web, beside

from jobwire_server.web.protection import HEADERS


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.9.9.9:80", "[::1]:8272", "[::1]"])
async def test_a_name_of_this_machine_is_let_in(web: Web, host: str) -> None:
    assert (await web.get("/healthz", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8272", "10.0.0.1", "0.0.0.0", "[::2]"],
)
async def test_another_name_on_loopback_is_refused(web: Web, host: str) -> None:
    for answer in (await web.get("/healthz", host=host), await web.call("JobService/CreateJob", host=host)):
        assert (answer.status, answer.json["code"]) == (403, "permission_denied")
        assert host not in answer.json["message"]
    assert (await web.call("JobService/CountJobs")).json.get("total") is None


async def test_where_others_reach_us_we_may_have_any_name() -> None:
    async with running() as run, beside(run, only_loopback=False) as web:
        assert (await web.get("/healthz", host="jobs.example")).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "file://", "http://127.0.0.1", "http://localhost:1"])
async def test_a_page_of_another_origin_creates_no_job(web: Web, origin: str) -> None:
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        answer = await web.call("JobService/CreateJob", {"job": {}}, origin=origin, content_type=content_type)
        assert (answer.status, answer.json["code"]) == (403, "permission_denied")
    assert (await web.ask("OPTIONS", "/jobwire.v1.JobService/CreateJob", b"", {"origin": origin})).status == 403
    assert (await web.call("JobService/CountJobs")).json.get("total") is None


async def test_a_page_of_ours_does(web: Web) -> None:
    answer = await web.call("JobService/CreateJob", {"job": {}}, origin=f"http://{web.address}")
    assert answer.json["created"]


async def test_the_origin_counts_where_others_reach_us_as_well() -> None:
    async with running() as run, beside(run, only_loopback=False) as web:
        refused = await web.call("JobService/CreateJob", {"job": {}}, host="jobs.example", origin="http://evil.example")
        ours = await web.call("JobService/CreateJob", {"job": {}}, host="jobs.example", origin="https://jobs.example")
        assert (refused.status, ours.status) == (403, 200)


async def test_every_answer_is_protected_and_none_is_shared(web: Web) -> None:
    answers = [
        await web.get("/healthz"),
        await web.get("/nowhere"),
        await web.get("/healthz", host="evil.example"),
        await web.get("/jobwire.v1.JobService/GetJob"),
        await web.call("JobService/CountJobs"),
        await web.call("JobService/GetJob"),
    ]
    assert [answer.status for answer in answers] == [200, 404, 403, 405, 200, 400]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers
    assert "unsafe" not in HEADERS["content-security-policy"]
