"""The dashboard of a server that asks who is there: the browser's own dialog, and what a viewer is offered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect
from tests.web.browser.conftest import Dashboard, Site, jobs

from jobwire_client import AsyncClient
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.service.principals import Role, entry

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("\n".join(entry(role, [role], f"of-{role}") for role in Role))
    app = App(Config(store="memory://", listen="127.0.0.1:0", drain_timeout=1, tokens=str(tokens)))
    address = await app.start()
    try:
        async with AsyncClient(address, token="of-producer") as client:
            yield Site(app, client, address, f"http://{app.http_address}")
    finally:
        await app.stop()


@pytest.fixture
def screen(role: str) -> dict[str, Any]:
    """A user who has answered the dialog."""
    return {"http_credentials": {"username": "ann", "password": f"of-{role}"}}


@pytest.mark.parametrize("role", ["viewer"])
async def test_a_viewer_sees_everything_as_it_happens_and_is_offered_nothing(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("")
    await page.shows("mail")
    for path in ("jobs/mail-0", "queues/mail", "dead"):
        await page.open(path)
        for name in ("Cancel…", "Delete…", "Pause…", "Purge…", "Replay all…"):
            await expect(page.button(name)).to_have_count(0)
    await page.open("jobs/mail-0")
    await site.client.cancel("mail-0", reason="sent by hand")
    await page.shows("sent by hand")


@pytest.mark.parametrize("role", ["admin"])
async def test_an_admin_does_what_the_page_offers(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("queues/mail")
    await page.confirm("Pause…", "Pause")
    await expect(page.button("Resume")).to_have_count(1)
