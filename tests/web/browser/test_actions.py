"""What is done from the dashboard takes effect, and what cannot be undone is asked about first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import expect
from tests.web.browser.conftest import Dashboard, Site, jobs

from jobwire_client import JobContext, PermanentError, state_name

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _fail(_: JobContext) -> None:
    raise PermanentError("no mailbox", code="NO_MAILBOX")


async def _stay(_: JobContext) -> None:
    await asyncio.Event().wait()


async def _state(site: Site, id: str) -> str:
    return state_name((await site.client.get(id)).state)


async def test_a_waiting_job_is_canceled_with_a_reason_and_replayed(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("jobs/mail-0")
    await page.confirm("Cancel…", "Cancel the job", {"Reason": "sent by hand"})
    await page.shows("It was canceled just now: sent by hand")
    assert await _state(site, "mail-0") == "CANCELED"
    await page.confirm("Replay…", "Replay")
    await page.shows("It is the next in queue mail")
    assert await _state(site, "mail-0") == "QUEUED"


async def test_a_scheduled_job_is_run_now(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail", schedule_time=datetime.now(UTC) + timedelta(hours=3)))
    await page.open("jobs/mail-0")
    await page.shows("It is scheduled for later")
    await page.confirm("Run now…", "Run now")
    await page.shows("It is the next in queue mail")
    assert await _state(site, "mail-0") == "QUEUED"


async def test_the_priority_of_a_job_is_changed(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("jobs/mail-0")
    await page.confirm("Priority…", "Change", {"Priority": "2"})
    assert (await site.client.get("mail-0")).priority == 2


async def test_a_running_job_is_deleted_and_its_queue_shown(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    async with site.working(_stay, queue="mail"):
        await page.open("jobs/mail-0")
        await page.shows("It runs at worker worker-of-mail")
        await page.confirm("Delete…", "Delete")
        await page.shows("No job here is in progress")
    assert await site.client.count() == {}
    page.expects_errors = True  # it may have looked once more, and the browser notes each answer that is an error


async def test_what_has_moved_on_meanwhile_is_not_hit(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("jobs/mail-0")
    await page.button("Cancel…").click()
    await site.client.update("mail-0", priority=1)
    dialog = page.page.get_by_role("dialog")
    await page.button("Cancel the job", dialog).click()
    await expect(dialog.get_by_role("alert")).to_contain_text("ETAG_MISMATCH")
    await page.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    assert await _state(site, "mail-0") == "QUEUED"
    page.expects_errors = True  # the browser notes each answer that is an error


async def test_a_queue_is_paused_and_resumed(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("queues/mail")
    await page.confirm("Pause…", "Pause")
    await page.shows("Paused")
    assert (await site.client.get_queue("mail")).paused
    await page.button("Resume").click()
    await page.button("Pause…").wait_for()
    assert not (await site.client.get_queue("mail")).paused


async def test_a_purge_says_how_many_and_deletes_no_more_than_the_states_chosen(page: Dashboard, site: Site) -> None:
    await site.create(jobs(3, "mail"))
    await site.run(_fail, "mail-0", "mail-1", "mail-2", queue="mail")
    await site.create(jobs(1005, "mail")[3:])
    await page.open("queues/mail")
    await page.button("Purge…").click()
    dialog = page.page.get_by_role("dialog")
    await page.button("Delete more than 1,000 jobs", dialog).wait_for()
    await dialog.get_by_label("Failed").check()
    await page.button("Keep as it is", dialog).click()
    assert await site.client.count() == {"QUEUED": 1002, "FAILED": 3}
    await page.button("Purge…").click()
    await page.button("Delete more than 1,000 jobs", dialog).click()
    await dialog.wait_for(state="detached")
    assert await site.client.count() == {"FAILED": 3}


async def test_dead_letters_are_counted_before_they_are_replayed_by_filter(page: Dashboard, site: Site) -> None:
    await site.create([*jobs(3, "mail"), *jobs(2, "bill", type="bill")])
    await site.run(_fail, "mail-0", "mail-1", "mail-2", queue="mail")
    await site.run(_fail, "bill-0", "bill-1", queue="bill")
    await page.open("dead?type=letter")
    await expect(page.rows).to_have_count(3)
    await page.button("Replay these…").click()
    await page.button("Replay 3 jobs", page.page.get_by_role("dialog")).click()
    await page.shows("No dead letter matches")
    assert await site.client.count() == {"QUEUED": 3, "FAILED": 2}


async def test_a_worker_is_made_quiet_told_to_end_and_let_work_again(page: Dashboard, site: Site) -> None:
    await site.create(jobs(2, "mail"))
    async with site.working(_stay, queue="mail", concurrency=2):
        await page.open("workers")
        row = page.row("worker-of-mail")
        await expect(row).to_contain_text("Busy")
        await row.get_by_text("2 of 2").click()
        await row.get_by_role("link", name="mail-0").wait_for()
        await page.confirm("Quiet…", "Quiet")
        await expect(row).to_contain_text("Quiet")
        await page.confirm("Let it work…", "Let it work")
        await expect(row).to_contain_text("Busy")


async def test_an_action_is_reached_and_done_by_keyboard_alone(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open("queues/mail")
    press = page.page.keyboard.press
    await page.page.locator("#main").focus()
    for _ in range(10):
        await press("Tab")
        if await page.button("Pause…").evaluate("(button) => button === document.activeElement"):
            break
    await press("Enter")
    await page.page.get_by_role("dialog").wait_for()
    await press("Tab")
    await press("Enter")
    await page.shows("Paused")
    await expect(page.button("Resume")).to_be_visible()


async def test_a_server_that_is_away_is_said_so_and_what_was_seen_stays(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail"))
    await page.open()
    await page.page.route("**/jobwire.v1.*/*", lambda route: route.abort())
    alert = page.page.get_by_role("alert")
    await expect(alert).to_contain_text("has not answered since")
    await page.row("mail").wait_for()
    await page.page.unroute_all()
    await page.page.get_by_text("Connected again").wait_for()
    await expect(alert).to_have_count(0)
    page.expects_errors = True  # the browser notes each request that failed
