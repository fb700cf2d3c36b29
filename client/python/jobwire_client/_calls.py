"""Calls with a deadline, repeated while that is safe and may help."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from jobwire_client._backoff import Backoff
from jobwire_client.errors import JobwireError, from_rpc_error

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    *,
    timeout: float,
    is_repeatable: bool = True,
) -> Response:
    """Raises the JobwireError of the last try. What is not repeatable is repeated only after a refusal, which changed
    nothing."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    backoff = Backoff()
    earlier: JobwireError | None = None
    while True:
        try:
            return await method(request, timeout=deadline - clock())
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
        error.came_after(earlier)
        wait = backoff.next(at_least=error.retry_after)
        if not is_worth_repeating(error, is_repeatable=is_repeatable) or clock() + wait >= deadline:
            raise error
        earlier = error
        await asyncio.sleep(wait)


def is_worth_repeating(error: JobwireError, *, is_repeatable: bool) -> bool:
    """Nothing but the state of the server or of its store was in the way."""
    if error.is_outcome_unknown:
        return is_repeatable
    return error.retry_after is not None or error.reason == "CONTENDED"
