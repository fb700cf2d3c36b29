"""Who asks: the same tokens as over gRPC, as a bearer's or, from a browser, as the password of HTTP Basic.

A browser that is asked so asks its user, and from then on sends the token by itself, with events as well: the dashboard
needs no page of its own for that, nor a cookie. Pages of other sites cannot make use of it: `protection` stands before.
"""

from __future__ import annotations

import logging
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.rpc.access import Access
from jobwire_server.rpc.status import refusal
from jobwire_server.web.answers import HttpCaller, refusal_response

_OPEN: Final = frozenset({"/healthz", "/readyz"})
"""For those who restart and balance: they tell nothing but whether it is well."""
_JUDGED: Final = frozenset({"/metrics"})
"""What stands in the table of roles and is no RPC: those the gate judges. The dashboard's files are for all roles."""

ROLES: Final = "jobwire-roles"
"""A header that tells the dashboard which buttons its user has any use for."""

log = logging.getLogger("jobwire.web")


class Login:
    """Refuses whoever does not show who he is, before anything else of the request is looked at."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, caller = scope["path"], HttpCaller(Request(scope))
        if path in _OPEN:
            await self._app(scope, receive, send)
            return
        try:
            principal = self._access.admit(path, caller) if path in _JUDGED else self._access.known(caller)
        except JobwireError as error:
            told = refusal(error)
            log.info("refused %s: %s %s", caller.peer(), told.reason, told.message)
            answer = refusal_response(told)
            if told.reason is Reason.UNAUTHENTICATED:
                answer.headers["www-authenticate"] = 'Basic realm="jobwire", charset="UTF-8"'
            await answer(scope, receive, send)
            return
        roles = " ".join(sorted(principal.roles))

        async def send_with_roles(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[ROLES] = roles
            await send(message)

        await self._app(scope, receive, send_with_roles)
