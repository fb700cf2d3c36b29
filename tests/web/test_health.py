"""Whether the server lives and whether it is ready, over HTTP."""

from __future__ import annotations

import pytest
from tests.rpc.standins import running
from tests.web.conftest import Web, beside


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_a_server_that_serves_lives_and_is_ready(web: Web) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await web.get(path)
        assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_without_its_store_it_lives_but_is_not_ready() -> None:
    async with running() as run, beside(run) as web:
        run.services.store_is_away = True
        assert (await web.get("/healthz")).status == 200
        answer = await web.get("/readyz")
        assert (answer.status, answer.json) == (503, {"status": "store unavailable"})
        run.services.store_is_away = False
        assert (await web.get("/readyz")).status == 200


async def test_a_draining_server_lives_but_is_not_ready() -> None:
    async with running() as run, beside(run) as web:
        web.server.begin_drain()
        assert (await web.get("/healthz")).status == 200
        answer = await web.get("/readyz")
        assert (answer.status, answer.json) == (503, {"status": "draining"})
