"""What the pages show, and that looking costs the server little."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from playwright.async_api import expect
from tests.web.browser.conftest import PATIENCE, Dashboard, Site, jobs

from jobwire.v1.job_pb2 import RetryPolicy
from jobwire_client import JobContext, PermanentError

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = ("", "jobs", "queues/mail", "jobs/mail-0", "workers", "dead", "server")
NARROW = {"viewport": {"width": 390, "height": 800}}

_TURN_AWAY = """(isHidden) => {
    Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


async def _fail(job: JobContext) -> None:
    raise PermanentError(f"no mailbox for {job.text}", code="NO_MAILBOX")


async def test_an_empty_server_tells_what_makes_a_first_job(page: Dashboard) -> None:
    await page.open()
    await page.shows("There are no jobs yet")
    await page.shows(f"{page.url}/jobwire.v1.JobService/CreateJob")


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_the_overview_counts_each_queue(page: Dashboard, site: Site) -> None:
    await site.create([*jobs(3, "mail"), *jobs(2, "print")])
    await site.client.pause_queue("print")
    await page.open()
    await expect(page.row("mail").get_by_role("cell").first).to_have_text("3")
    await page.row("print").get_by_text("Paused").wait_for()
    await site.run(_fail, *(job.id for job in jobs(3, "mail")), queue="mail")
    await page.row("mail").locator("[data-name='Dead letters']").get_by_role("link", name="3").click()
    await page.page.wait_for_url("**/#/queues/mail?state=FAILED")
    await expect(page.page.get_by_text("NO_MAILBOX")).to_have_count(3)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [("SQLITE", "On Redis or Valkey several processes share the work"), ("REDIS", "Start more of them")],
)
@pytest.mark.parametrize("path", ["", "server"])
async def test_a_server_that_can_carry_little_more_says_so_and_what_to_do(
    page: Dashboard, path: str, kind: str, advice: str
) -> None:
    told = {"load": 0.699, "store": {"connected": True, "kind": f"STORE_KIND_{kind}"}}
    await page.page.route("**/*.AdminService/GetServerInfo", lambda route: route.fulfill(json=told))
    await page.open(path)
    await expect(page.page.get_by_text(advice)).to_have_count(0)
    told["load"] = 0.93
    await page.shows("This server was at work for 93 % of the last minute, and can do little more")
    await page.shows(advice)


async def test_a_queue_is_paged_by_keyset_and_each_job_comes_once(page: Dashboard, site: Site) -> None:
    await site.create(jobs(120, "mail"))
    await page.open("queues/mail?state=QUEUED")
    seen: list[str] = []
    for number, rows in enumerate((50, 50, 20), 1):
        await page.shows(f"Page {number}")
        await expect(page.rows).to_have_count(rows)
        seen += await page.page.get_by_role("rowheader").get_by_role("link").all_text_contents()
        if rows == 50:
            await page.button("Next →").click()
    assert len(set(seen)) == 120
    await expect(page.button("Next →")).to_be_disabled()


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [("Type", "bill", "b"), ("User", "ann", "a"), ("Labels", "region=eu  team=x", "c")],
)
async def test_jobs_are_found_by_type_user_and_labels(
    page: Dashboard, site: Site, field: str, value: str, found: str
) -> None:
    await site.create([*jobs(2, "noise", labels={"region": "eu"}), *jobs(1, "b", type="bill")])
    await site.create([*jobs(1, "a", user_id="ann"), *jobs(1, "c", labels={"region": "eu", "team": "x"})])
    await page.open("jobs")
    await page.page.get_by_label(field, exact=True).fill(value)
    await page.button("Filter").click()
    await expect(page.rows).to_have_count(1)
    await page.row(f"{found}-0").wait_for()


async def test_a_job_is_found_by_its_id_from_anywhere(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("server")
    await page.page.get_by_label("Find a job by its id").fill("mail-0")
    await page.page.keyboard.press("Enter")
    await page.page.get_by_role("heading", name="mail-0").wait_for()
    await page.page.get_by_label("Find a job by its id").fill("nobody")
    await page.button("Find").click()
    await page.shows("There is no job 'nobody'")
    page.expects_errors = True  # the browser notes each answer that is an error


async def test_a_job_tells_what_happened_to_it(page: Dashboard, site: Site) -> None:
    at_once = RetryPolicy(max_retries=1, initial_delay=Duration())
    await site.create(jobs(1, "mail", payload={"to": "ann", "order": 9007199254740993}, retry_policy=at_once))

    async def stumble(_: JobContext) -> None:
        raise ConnectionError("no route to host")

    await site.run(stumble, "mail-0", queue="mail")
    await page.open("jobs/mail-0")
    await page.shows('"order": 9007199254740993')
    attempts = page.page.locator(".attempts li")
    await expect(attempts).to_have_count(2)
    await expect(attempts.nth(1)).to_contain_text("no route to host")
    await page.shows("attempt 2, 1 of 1 retries used")


async def test_progress_is_seen_while_it_is_made(page: Dashboard, site: Site) -> None:
    go_on = asyncio.Event()

    async def render(job: JobContext) -> str:
        await job.report(0.25, "frame 1 of 4")
        await go_on.wait()
        await job.report(0.75, "frame 3 of 4")
        return "a film"

    await site.create(jobs(1, "film"))
    async with site.working(render, queue="film"):
        await page.open("jobs/film-0")
        await page.shows("frame 1 of 4")
        assert await page.page.get_by_role("progressbar").get_attribute("value") == "0.25"
        go_on.set()
        await page.shows("It completed")
        await page.shows("a film")


async def test_looking_at_100_000_jobs_reads_and_shows_fifty(page: Dashboard, site: Site) -> None:
    await site.create(jobs(100_000, "bulk"))
    await page.open()
    await page.row("bulk").get_by_role("link", name="100,000").click()
    await page.page.wait_for_url("**/queues/bulk?state=QUEUED")
    await expect(page.rows).to_have_count(50)
    page.calls.clear()
    await page.button("Next →").click()
    await page.shows("Page 2")
    await expect(page.rows).to_have_count(50)
    assert Counter(page.calls)["JobService/ListJobs"] <= 2  # one, and perhaps one of the rhythm


@pytest.mark.parametrize("screen", [NARROW], ids=["390px"])
async def test_no_page_is_wider_than_a_telephone(page: Dashboard, site: Site) -> None:
    await site.create(jobs(60, "mail", type="a.rather.long.name.of.a.type." * 5, labels={"region": "x" * 200}))
    await site.create(jobs(1, "print"))
    await site.run(_fail, "print-0", queue="print")
    for path in (*PAGES, "jobs/print-0"):
        await page.open(path)
        assert await page.sticking_out() == [], path


@pytest.mark.parametrize(
    "screen", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light system", "dark system"]
)
async def test_the_theme_follows_the_system_until_it_is_chosen(page: Dashboard, screen: dict[str, Any]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    await page.open()
    white, black = "rgb(245, 246, 248)", "rgb(14, 17, 23)"
    assert await page.page.evaluate(ground) == (white if screen["color_scheme"] == "light" else black)
    for chosen, color in (("light", white), ("dark", black)):
        await page.page.locator(".theme").click()
        await page.page.reload()
        assert await page.page.evaluate("document.documentElement.dataset.theme") == chosen
        assert await page.page.evaluate(ground) == color


async def test_every_page_says_what_it_is(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    titles = []
    for path in PAGES:
        await page.open(path)
        await expect(page.page.locator("h1")).to_have_count(1)
        titles.append(await page.page.title())
    assert len(set(titles)) == len(PAGES)


async def test_a_page_out_of_sight_holds_no_stream_and_is_told_again_when_seen(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open()
    await page.row("mail").wait_for()
    await page.page.evaluate(_TURN_AWAY, True)
    async with asyncio.timeout(PATIENCE / 1000):
        await site.app._server.gate.idle()  # nothing of the page is under way
    await site.create(jobs(2, "mail")[1:])
    await page.page.evaluate(_TURN_AWAY, False)
    await expect(page.row("mail").get_by_role("cell").first).to_have_text("2")
