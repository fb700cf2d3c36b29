"""The dashboard in a real Chromium, one for all tests, over a server in this process, a fresh one for each.

Whatever a page complains of is a failure: an exception, a line in its console, a break of its content security policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, async_playwright, expect
from tests.valkey_process import Keyspace
from tests.web.browser import chromium

from jobwire.v1.job_service_pb2 import BatchCreateJobsRequest, CreateJobRequest
from jobwire_client import AsyncClient, Handler, Job, Worker, new_job
from jobwire_server.app import App
from jobwire_server.config import Config

PATIENCE: Final = 10_000
"""Milliseconds that a page has to show what it should. A page looks for news every two seconds."""

expect.set_options(timeout=PATIENCE)

_WATCH: Final = """
    addEventListener("securitypolicyviolation", (event) =>
        console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
"""
_STICKING_OUT: Final = """() => {
    const { clientWidth, scrollWidth } = document.documentElement;
    return [...document.querySelectorAll("body *")]
        .filter((each) => !each.closest("nav, pre, .hidden, thead"))
        .filter((each) => each.getBoundingClientRect().right > clientWidth + 1)
        .concat(scrollWidth > clientWidth ? [document.body] : [])
        .map((each) => `${each.tagName}.${each.className}`);
}"""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "page" in getattr(item, "fixturenames", ()) and chromium.path() is None:
        pytest.skip("Chromium: there is none on PATH; `make browser` installs Debian's, or says what to install")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright, chromium.launched(playwright) as started:
        yield started


@dataclass(frozen=True, slots=True)
class Site:
    """A server, and what a test puts into it."""

    app: App
    client: AsyncClient
    address: str
    """Of gRPC."""
    url: str
    """Of the dashboard."""

    async def create(self, jobs: Iterable[Job]) -> None:
        requests = (CreateJobRequest(job=job) for job in jobs)
        while batch := list(islice(requests, 1000)):
            answer = await self.client.stubs.jobs.BatchCreateJobs(BatchCreateJobsRequest(requests=batch, brief=True))
            assert all(result.HasField("response") for result in answer.results)

    @asynccontextmanager
    async def working(
        self, handler: Handler, *, queue: str = "default", concurrency: int = 10
    ) -> AsyncIterator[Worker]:
        """A worker that runs jobs of any type; it holds what it has when the block is left, and is gone then."""
        worker = Worker(self.address, queues=[queue], concurrency=concurrency, id=f"worker-of-{queue}", grace=0)
        worker.default_handler(handler)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await running

    async def run(self, handler: Handler, *ids: str, queue: str = "default") -> None:
        """Until these jobs have ended."""
        async with self.working(handler, queue=queue):
            for id in ids:
                await self.client.wait(id, timeout=PATIENCE / 1000)


@pytest.fixture
def engine() -> str:
    """What the pages say is what the calls answer, the same on every store; one test looks at more than one."""
    return "sqlite"


@pytest_asyncio.fixture(loop_scope="session")
async def site(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> AsyncIterator[Site]:
    store = f"sqlite:///{tmp_path}/jobs.db" if keyspace is None else keyspace.url
    app = App(Config(store=store, listen="127.0.0.1:0", http="127.0.0.1:0", drain_timeout=1))
    address = await app.start()
    try:
        async with AsyncClient(address) as client:
            yield Site(app, client, address, f"http://{app.http_address}")
    finally:
        await app.stop()


@dataclass
class Dashboard:
    """A page of the dashboard, as its user has it."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    """What the page said is wrong. Must be empty at the end."""
    expects_errors: bool = False
    """The browser itself notes each answer that is an error; where the test is about one, that is no complaint."""
    calls: list[str] = field(default_factory=list)
    """Names of the RPCs called, such as `JobService/GetJob`."""

    async def open(self, path: str = "") -> None:
        """Such as `queues/mail?state=FAILED`; returns when it shows what it is of."""
        await self.page.goto(f"{self.url}/#/{path}")
        where = unquote(path.partition("?")[0], errors="strict")
        await expect(self.page.get_by_role("main")).to_have_attribute("data-path", where)
        await expect(self.page.locator(".loading")).to_have_count(0)

    def button(self, name: str, within: Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=name, exact=True)

    @property
    def rows(self) -> Locator:
        """Of the table, its head left out; none while it still shows the page before."""
        return self.page.locator("table:not([aria-busy=true]) tbody tr")

    def row(self, name: str) -> Locator:
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("rowheader").filter(has_text=name))

    async def confirm(self, button: str, verb: str, fill: Mapping[str, str] | None = None) -> None:
        """Presses a button that asks, fills in what it wants to know, and confirms."""
        await self.button(button).click()
        dialog = self.page.get_by_role("dialog")
        for label, text in (fill or {}).items():
            await dialog.get_by_label(label).fill(text)
        await self.button(verb, dialog).click()
        await dialog.wait_for(state="detached")

    async def shows(self, text: str) -> None:
        await self.page.get_by_role("main").get_by_text(text).first.wait_for()

    async def sticking_out(self) -> list[str]:
        """What reaches beyond the right edge, but for what scrolls by itself; first of all the page as a whole."""
        found: list[str] = await self.page.evaluate(_STICKING_OUT)
        return found

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if request.method == "POST":
            self.calls.append(request.url.partition("/jobwire.v1.")[2])

    def watch(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)


@pytest.fixture
def screen() -> dict[str, Any]:
    """What the page is looked at with; a test that wants another one says so by `parametrize`."""
    return {"viewport": {"width": 1280, "height": 900}}


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, site: Site, screen: dict[str, Any]) -> AsyncIterator[Dashboard]:
    context = await browser.new_context(**screen)
    context.set_default_timeout(PATIENCE)
    await context.add_init_script(_WATCH)
    dashboard = Dashboard(await context.new_page(), site.url)
    dashboard.watch()
    yield dashboard
    await context.close()
    noted = "Failed to load resource" if dashboard.expects_errors else None
    assert [each for each in dashboard.complaints if noted is None or not each.startswith(noted)] == []


def jobs(count: int, queue: str = "default", **fields: Any) -> list[Job]:
    """Named `queue-0` and so on."""
    return [new_job(**{"type": "letter", **fields}, id=f"{queue}-{number}", queue=queue) for number in range(count)]
