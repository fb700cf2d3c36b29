"""The browser: Debian's Chromium or another one on PATH; Playwright's own are not used."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from playwright.async_api import Browser, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@cache
def path() -> str | None:
    """None: there is none here."""
    return next((found for name in _NAMES if (found := shutil.which(name)) is not None), None)


@asynccontextmanager
async def launched(playwright: Playwright) -> AsyncIterator[Browser]:
    # As root Chromium refuses to start with its sandbox. The pages are ours.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = await playwright.chromium.launch(executable_path=path(), args=options)
    try:
        yield browser
    finally:
        await browser.close()
