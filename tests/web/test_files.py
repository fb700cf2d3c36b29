"""The dashboard's files: served, cached by tag, in the wheel, and none of the borrowed ones altered."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from tests.web.conftest import Web

VENDORED = {
    "htm-preact.js": "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7",
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uplot.js": "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
}
"""SHA-256 of what npm serves: see vendor/README.md for package, version and path."""

UNSAFE = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://")


@pytest.fixture(scope="session")
def dashboard(repository: Path) -> Path:
    return repository / "server/jobwire_server/web/dashboard"


@pytest.mark.parametrize("name", VENDORED)
def test_what_is_borrowed_is_as_its_authors_published_it(dashboard: Path, name: str) -> None:
    assert hashlib.sha256((dashboard / "vendor" / name).read_bytes()).hexdigest() == VENDORED[name]


def test_nothing_borrowed_is_without_its_licence_and_its_place_in_the_list(dashboard: Path) -> None:
    files = {path.name for path in (dashboard / "vendor").iterdir()}
    assert files == {*VENDORED, "LICENSE-htm", "LICENSE-preact", "LICENSE-uplot", "README.md"}
    listed = (dashboard / "vendor/README.md").read_text()
    assert all(f"`{name}`" in listed and digest in listed for name, digest in VENDORED.items())


def test_our_own_code_makes_no_markup_of_text_and_fetches_nothing_from_elsewhere(dashboard: Path) -> None:
    ours = [path for path in dashboard.iterdir() if path.suffix in (".js", ".html", ".css")]
    assert len(ours) > 10
    assert {path.name: found for path in ours if (found := UNSAFE.findall(path.read_text()))} == {}


async def test_the_page_loads_only_what_is_served(web: Web) -> None:
    page = await web.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page.body.decode()))
    assert {"dashboard/app.js", "dashboard/style.css"} < named
    while named:
        path = named.pop()
        answer = await web.get(f"/{path}")
        assert answer.status == 200, path
        if path.endswith(".js") and "/vendor/" not in path:
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
            named |= {f"dashboard/{name}" for name in re.findall(r'from "\./([^"]+)"', answer.body.decode())}


async def test_a_file_is_sent_again_only_when_it_is_another(web: Web) -> None:
    first = await web.get("/dashboard/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await web.get("/dashboard/app.js", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert (await web.get("/dashboard/app.js", if_none_match='"older"')).status == 200


@pytest.mark.parametrize("path", ["/dashboard/vendor/LICENSE-htm", "/dashboard/../server.py", "/dashboard/", "/app.js"])
async def test_nothing_else_is_served(web: Web, path: str) -> None:
    assert (await web.get(path)).status == 404
