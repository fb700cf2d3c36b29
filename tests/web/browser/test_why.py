"""The page of a job and `jobwire why` give the same reasons: they are written twice, in two languages."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from google.protobuf.duration_pb2 import Duration
from playwright.async_api import expect
from tests.web.browser.conftest import PATIENCE, Dashboard, Site, jobs

from jobwire.v1.job_pb2 import RetryPolicy
from jobwire_client import JobContext, PermanentError, Release
from jobwire_client.cli import main

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATER = timedelta(hours=2)


async def _agreed(page: Dashboard, site: Site, id: str) -> list[str]:
    """The reasons, once both say the same."""
    ran = await asyncio.to_thread(
        CliRunner().invoke, main, ["why", id, "--output", "json"], env={"JOBWIRE_ADDRESS": site.address}
    )
    assert ran.exit_code == 0, ran.output
    reasons: list[str] = json.loads(ran.stdout)["reasons"]
    await page.open(f"jobs/{id}")
    await expect(page.page.locator(".why")).to_have_attribute("data-reasons", ",".join(reasons))
    return reasons


async def test_why_a_waiting_job_waits(page: Dashboard, site: Site) -> None:
    await site.create(jobs(3, "mail"))
    assert await _agreed(page, site, "mail-0") == ["NO_FREE_WORKER"]
    assert await _agreed(page, site, "mail-2") == ["JOBS_AHEAD"]
    await page.shows("2 jobs are ahead of it")
    await site.client.pause_queue("mail")
    assert await _agreed(page, site, "mail-1") == ["QUEUE_PAUSED", "JOBS_AHEAD"]
    await site.create(
        jobs(1, "later", schedule_time=datetime.now(UTC) + LATER, expire_time=datetime.now(UTC) + 2 * LATER)
    )
    assert await _agreed(page, site, "later-0") == ["SCHEDULED"]


async def test_why_a_job_that_was_tried_waits(page: Dashboard, site: Site) -> None:
    async def give_back(job: JobContext) -> None:
        if job.job.id == "back-0":
            raise Release(delay=LATER)
        raise ConnectionError("no route to host")

    patient = RetryPolicy(initial_delay=Duration(seconds=900))
    await site.create([*jobs(1, "back"), *jobs(1, "again", retry_policy=patient)])
    async with site.working(give_back, queue="back"), site.working(give_back, queue="again"):
        for id, reasons in (("back-0", ["GIVEN_BACK"]), ("again-0", ["WAITS_FOR_RETRY"])):
            await page.open(f"jobs/{id}")
            await expect(page.page.locator(".why")).to_have_attribute("data-reasons", *reasons)
            assert await _agreed(page, site, id) == reasons


async def test_what_a_running_job_does_and_what_holds_up_the_next_one(page: Dashboard, site: Site) -> None:
    over = threading.Event()

    def stay(_: JobContext) -> None:
        over.wait(PATIENCE)  # a thread: it does not hear that it was canceled

    await site.client.update_queue("mail", max_in_flight=1, allow_missing=True)
    await site.create(jobs(2, "mail"))
    async with site.working(stay, queue="mail"):
        await page.open("jobs/mail-0")
        await page.shows("It runs at worker worker-of-mail")
        assert await _agreed(page, site, "mail-0") == ["IN_PROGRESS"]
        assert await _agreed(page, site, "mail-1") == ["QUEUE_AT_CEILING"]
        await site.client.cancel("mail-0", reason="too late", grace=600)
        assert await _agreed(page, site, "mail-0") == ["IN_PROGRESS", "CANCEL_REQUESTED"]
        over.set()


async def test_how_a_job_has_ended(page: Dashboard, site: Site) -> None:
    async def end(job: JobContext) -> str:
        if job.job.id == "mail-1":
            raise PermanentError("no mailbox")
        return "sent"

    await site.create(jobs(2, "mail"))
    await site.run(end, "mail-0", "mail-1", queue="mail")
    await site.create(jobs(3, "mail")[2:])
    await site.client.cancel("mail-2")
    for id, said in (("mail-0", "It completed"), ("mail-1", "It failed for good"), ("mail-2", "It was canceled")):
        assert await _agreed(page, site, id) == ["ENDED"]
        await page.shows(said)
