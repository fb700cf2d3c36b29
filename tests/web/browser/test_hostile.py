"""Whatever a producer puts into a job is text on every page: it runs nothing, loads nothing, breaks nothing."""

from __future__ import annotations

import pytest
from playwright.async_api import expect
from tests.web.browser.conftest import Dashboard, Site, jobs

from jobwire_client import Job, JobContext, PermanentError, new_job

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = {
    "image": "<img src=x onerror=\"document.title='owned'\">",
    "script": "</script><script>document.title='owned'</script>",
    "link": "javascript:document.title='owned'",
    "template": "${document.title='owned'}{{constructor.constructor('document.title=1')()}}",
    "right-to-left": "\u202egnp.exe\u2066 \u202d",
    "vnode": '{"type":"img","props":{"src":"x","onerror":"document.title=1"},"__v":1,"constructor":null}',
}


async def test_what_a_job_says_is_text_wherever_it_stands(page: Dashboard, site: Site) -> None:
    async def fail(job: JobContext) -> None:
        await job.report(0.5, job.text)
        raise PermanentError(job.text, code=job.text)

    def hostile(queue: str) -> list[Job]:
        return [
            new_job(text, text, id=f"{queue}-{name}", queue=queue, user_id=text, labels={text: text})
            for name, text in HOSTILE.items()
        ]

    await site.create([*hostile("failed"), *hostile("queued")])
    await site.run(fail, *(job.id for job in hostile("failed")), queue="failed")
    alien = "document.querySelectorAll('main script, main img, main iframe, main a[href^=javascript]').length"
    everything = list(HOSTILE.values())
    expected = dict.fromkeys(("jobs", "queues/failed?state=FAILED", "queues/queued", "dead"), everything)
    expected |= {f"jobs/failed-{name}": [text] for name, text in HOSTILE.items()}
    for path, texts in expected.items():
        await page.open(path)
        for text in texts:
            await expect(page.page.get_by_role("main")).to_contain_text(text)
        assert await page.page.evaluate(alien) == 0, path
        assert (await page.page.title()).endswith("jobwire"), path


async def test_what_the_address_says_is_text_as_well(page: Dashboard) -> None:
    await page.open("queues/%3Cimg%20src=x%20onerror=alert(1)%3E")
    await page.shows("<img src=x onerror=alert(1)>")
    await page.page.goto(f"{page.url}/#/%3Cscript%3E/%E0%A4%A")
    await page.shows("There is no such page")
    page.expects_errors = True  # the browser notes each answer that is an error


async def test_a_payload_of_200_kb_is_shown_in_part_until_all_is_asked_for(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail", payload="<b>" * 66_000))
    await page.open("jobs/mail-0")
    shown = page.page.get_by_label("Payload", exact=True)
    assert len(await shown.inner_text()) == 16 * 1024
    await page.button("Show all of it").click()
    await expect(shown).to_have_text("<b>" * 66_000)


async def test_bytes_that_are_no_text_are_shown_as_bytes(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail", payload=b"\x00\xff\xfe<script>"))
    await page.open("jobs/mail-0")
    await page.shows("not a text")
    await page.shows("00 ff fe 3c 73 63")


async def test_json_is_laid_out_and_no_digit_of_it_changes(page: Dashboard, site: Site) -> None:
    await site.create(jobs(1, "mail", payload='{"a":12345678901234567890,"b":[],"c":[1.10,"x, {y}: \\"z\\""]}'))
    await page.open("jobs/mail-0")
    lines = (
        "{",
        '  "a": 12345678901234567890,',
        '  "b": [],',
        '  "c": [',
        "    1.10,",
        '    "x, {y}: \\"z\\""',
        "  ]",
        "}",
    )
    await expect(page.page.get_by_label("Payload", exact=True)).to_have_text("\n".join(lines), use_inner_text=True)
