"""The dashboard's files, from memory: `/` and what its page asks for. They are in the package, and few."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served; anything else in the folder, such as a licence, is not."""


def dashboard() -> list[Route]:
    """A route for each file, and `/` for the page itself."""
    folder = files("jobwire_server.web") / "dashboard"
    return [
        Route("/" if path == "index.html" else f"/dashboard/{path}", file.serve) for path, file in _read(folder, "")
    ]


def _read(folder: Traversable, above: str) -> Iterator[tuple[str, _File]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{above}{entry.name}/")
            continue
        _, dot, extension = entry.name.rpartition(".")
        if (media_type := _TYPES.get(dot + extension)) is not None:
            content = entry.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:32]
            yield f"{above}{entry.name}", _File(content, media_type, f'"{tag}"')


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    tag: str

    async def serve(self, request: Request) -> Response:
        # Asked for again each time, and sent again only when another release serves it.
        headers = {"etag": self.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)
