"""Who asks over HTTP: a bearer's token, or a browser's user by the dialog of HTTP Basic."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.web.conftest import Web

from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.service.principals import Role, entry

BEARER = "Bearer"
OPEN = ["/healthz", "/readyz"]
FILES = ["/", "/dashboard/app.js"]


def basic(user: str, token: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}"}


def bearer(role: Role) -> dict[str, str]:
    return {"authorization": f"{BEARER} of-{role}"}


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    path = tmp_path / "tokens.toml"
    path.write_text("\n".join(entry(f"the-{role}", [role], f"of-{role}") for role in Role))
    path.chmod(0o600)
    app = App(Config(store="memory://", listen="127.0.0.1:0", drain_timeout=1, tokens=str(path)))
    await app.start()
    try:
        assert app.http_address is not None
        yield Web(app.http_address)
    finally:
        await app.stop()


@pytest.mark.parametrize("path", [*FILES, "/metrics", "/events/stats", "/no-such-page"])
async def test_a_browser_that_shows_nothing_is_told_to_ask_its_user(web: Web, path: str) -> None:
    for headers in ({}, basic("ann", "wrong"), {"authorization": "Basic ?"}, {"authorization": "Bearer wrong"}):
        answer = await web.ask("GET", path, b"", headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        assert answer.json["code"] == "unauthenticated"
        assert answer.reason == "UNAUTHENTICATED"


@pytest.mark.parametrize("path", OPEN)
async def test_anybody_may_ask_whether_it_is_well(web: Web, path: str) -> None:
    assert (await web.ask("GET", path, b"", {})).status == 200


@pytest.mark.parametrize("path", FILES)
async def test_the_page_is_for_whoever_is_known_whatever_the_user_is_called(web: Web, path: str) -> None:
    for user in ("", "ann", "jobwire"):
        assert (await web.ask("GET", path, b"", basic(user, "of-viewer"))).status == 200


async def test_a_call_is_judged_by_the_roles_of_its_token(web: Web) -> None:
    for headers in (bearer(Role.PRODUCER), basic("ann", "of-producer")):
        assert (await web.call("JobService/CreateJob", {"job": {"type": "t"}}, **headers)).status == 200
        refused = await web.call("JobService/CancelJobs", {"filter": {"queues": ["q"]}}, **headers)
        assert refused.status == 403
        assert refused.reason == "PERMISSION_DENIED"


async def test_events_and_metrics_are_for_those_who_may_look(web: Web) -> None:
    assert (await web.ask("GET", "/metrics", b"", bearer(Role.VIEWER))).status == 200
    for path in ("/metrics", "/events/stats"):
        assert (await web.ask("GET", path, b"", bearer(Role.WORKER))).status == 403


async def test_a_page_of_another_site_gains_nothing_by_a_browser_that_knows_the_token(web: Web) -> None:
    headers = {**basic("ann", "of-admin"), "origin": "http://evil.example"}
    answer = await web.call("QueueService/PurgeQueue", {"name": "q"}, **headers)
    assert (answer.status, "Origin" in answer.json["message"]) == (403, True)


async def test_who_is_not_known_is_told_before_its_message_is_read(web: Web) -> None:
    answer = await web.ask(
        "POST", "/jobwire.v1.JobService/CreateJob", b"{ no json", {"content-type": "application/json"}
    )
    assert answer.status == 401


async def test_the_log_says_who_was_refused_and_shows_no_token(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await web.ask("GET", "/", b"", basic("ann", "a-wrong-token"))
    [record] = [each for each in caplog.records if each.name == "jobwire.web"]
    assert record.getMessage().startswith("refused http:127.0.0.1:")
    assert "UNAUTHENTICATED" in caplog.text
    assert "a-wrong-token" not in caplog.text
