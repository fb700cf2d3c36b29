"""What keeps the browser of somebody on this machine from being used against the server: every request passes it.

A page of any origin can send requests to loopback. It cannot read the answers, since we never send a CORS header; this
is about requests that change something, and about names that an attacker points at loopback (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_READING: Final = frozenset({"GET", "HEAD"})

log = logging.getLogger("jobwire.web")


class Protection:
    """Refuses what a foreign page may have sent, and puts HEADERS on every answer."""

    def __init__(self, app: ASGIApp, *, only_loopback: bool) -> None:
        """`only_loopback`: nobody but this machine can reach us, so that no other name for us is an honest one."""
        self._app = app
        self._only_loopback = only_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # there are no websockets, and our server asks for no lifespan
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if wrong := self._wrong(scope):
            # Neither header is repeated: whoever sent them knows them, and the log is no place for a stranger's words.
            log.warning("refused a %s: %s", scope["method"] if scope["method"] in _READING else "change", wrong)
            refused = JSONResponse({"code": "permission_denied", "message": wrong}, status_code=403)
            await refused(scope, receive, send_protected)
            return
        await self._app(scope, receive, send_protected)

    def _wrong(self, scope: Scope) -> str:
        """Why this request is refused; empty when it is not."""
        hosts = _values(scope, b"host")
        if self._only_loopback and not (len(hosts) == 1 and _is_loopback(hosts[0])):
            return "the Host header names another machine than this one: use 127.0.0.1 or localhost"
        if scope["method"] in _READING:
            return ""
        # Browsers send it with every POST; what is no browser sends none.
        for origin in _values(scope, b"origin"):
            if len(hosts) != 1 or origin.partition("://")[2].lower() != hosts[0].lower():
                return "the Origin header names another site: its pages may change nothing here"
        return ""


def is_from_browser(scope: Scope) -> bool:
    return bool(_values(scope, b"origin") or _values(scope, b"sec-fetch-site"))


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_loopback(host: str) -> bool:
    """Of a Host header. Any port: a tunnel may have one of its own."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
