"""The pictures of the README: make screenshots.

A server of its own on a free port, a shop at work on it, and Chromium; docs/figures/dashboard-*.png are written anew.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import Browser, async_playwright
from tests.web.browser import shop
from tests.web.browser.chromium import launched

from jobwire_server.app import App
from jobwire_server.config import Config

FIGURES: Final = Path(__file__).resolve().parents[3] / "docs/figures"
SEEN_FOR: Final = 150.0
"""Seconds that the shop has been open when it is looked at: the chart needs a past."""

Scheme = Literal["light", "dark"]
PICTURES: Final[tuple[tuple[str, str, Scheme], ...]] = (
    ("overview", "", "light"),
    ("overview", "", "dark"),
    ("job", f"jobs/{shop.UNDELIVERABLE}", "light"),
    ("job", f"jobs/{shop.UNDELIVERABLE}", "dark"),
)


async def take(browser: Browser, url: str, name: str, path: str, scheme: Scheme) -> None:
    page = await browser.new_page(color_scheme=scheme, viewport={"width": 1160, "height": 840})
    await page.goto(f"{url}/#/{path}")
    await page.locator(".card").first.wait_for()
    if not path:
        await asyncio.sleep(SEEN_FOR)  # for the chart to grow
    await page.mouse.move(0, 0)
    picture = FIGURES / f"dashboard-{name}-{scheme}.png"
    await page.screenshot(path=picture)
    await page.close()
    print(f"{picture}: {picture.stat().st_size // 1024} KiB")  # noqa: T201  # a command


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        app = App(Config(store=f"sqlite:///{folder}/jobs.db", listen="127.0.0.1:0", http="127.0.0.1:0"))
        address = await app.start()
        try:
            async with shop.opened(address), async_playwright() as playwright, launched(playwright) as browser:
                url = f"http://{app.http_address}"
                await asyncio.gather(*(take(browser, url, *picture) for picture in PICTURES))
        finally:
            await app.stop()


if __name__ == "__main__":
    asyncio.run(main())
