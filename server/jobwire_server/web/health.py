"""Whether this server lives, and whether it is ready: for balancers and for those who restart what is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobwire_server.store.base import Store, StoreUnavailable

_PATIENCE: Final = 2.0
"""Seconds for the store. Balancers ask every few of them."""


class Health:
    """Two endpoints."""

    def __init__(self, store: Store, *, is_draining: Callable[[], bool]) -> None:
        self._store = store
        self._is_draining = is_draining

    async def healthz(self, _: Request) -> Response:
        """The process lives: nothing else is asked, so that nobody restarts a server because its store is away."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """Calls are answered: the store is there, and this server is not about to go."""
        if self._is_draining():
            return JSONResponse({"status": "draining"}, status_code=503)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._store.ping()
        except (StoreUnavailable, TimeoutError):
            return JSONResponse({"status": "store unavailable"}, status_code=503)
        return JSONResponse({"status": "ok"})
