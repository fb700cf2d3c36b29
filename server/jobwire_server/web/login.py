"""Who asks: the same tokens as over gRPC, as a bearer's or, from a browser, as the password of HTTP Basic.

A browser that is asked so asks its user, and from then on sends the token by itself, with events as well: the dashboard
needs no page of its own for that, nor a cookie. Pages of other sites cannot make use of it: `protection` stands before.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from jobwire_server.domain.errors import JobwireError
from jobwire_server.rpc.access import Access
from jobwire_server.rpc.status import refusal
from jobwire_server.web.answers import HttpCaller, refusal_response

_OPEN: Final = frozenset({"/healthz", "/readyz"})
"""For those who restart and balance: they tell nothing but whether it is well."""
_JUDGED: Final = frozenset({"/metrics"})
"""What stands in the table of roles and is no RPC: those the gate judges. The dashboard's files are for all roles."""


class Login:
    """Refuses whoever does not show who he is, before anything else of the request is looked at."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        try:
            if path in _JUDGED:
                self._access.admit(path, HttpCaller(Request(scope)))
            elif path not in _OPEN:
                self._access.known(HttpCaller(Request(scope)))
        except JobwireError as error:
            answer = refusal_response(refusal(error))
            if answer.status_code == 401:
                answer.headers["www-authenticate"] = 'Basic realm="jobwire", charset="UTF-8"'
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)
