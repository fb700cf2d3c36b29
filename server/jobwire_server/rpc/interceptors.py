"""What surrounds every call of ours: who may make it, parsing, the limit of calls in flight, errors as statuses, a line
in the log.

It wraps a method when that is registered instead of standing in grpc's chain of interceptors: a call pays for it once,
and health and reflection never pass it. Both sides of it are bytes, so that a message that cannot be parsed or an
answer that cannot be written is answered by us; grpc would log a traceback and tell the client UNKNOWN with its text.

`Gate.answer` knows nothing of gRPC's contexts: calls that come over HTTP pass through it as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message
from grpc import StatusCode, aio

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.rpc.access import Access
from jobwire_server.rpc.metering import Meter
from jobwire_server.rpc.status import Refusal, number, refusal
from jobwire_server.telemetry.logs import fields, principal_name
from jobwire_server.telemetry.traces import Traces, failed

if TYPE_CHECKING:
    # Generic in the stubs alone.
    Context: TypeAlias = aio.ServicerContext[bytes, bytes]
else:
    Context = aio.ServicerContext

T = TypeVar("T")

CALL_RETRY: Final = 100_000
"""Microseconds after which a call that met a full server may find room."""

LET_IN_FOR: Final = 5.0
"""Seconds after which a stream is asked anew whether its caller may have it; that costs as much as a call does."""

_LEVELS: Final = {
    StatusCode.INTERNAL: logging.ERROR,
    StatusCode.UNAVAILABLE: logging.WARNING,
    StatusCode.RESOURCE_EXHAUSTED: logging.WARNING,
}
"""All others are the caller's affair: INFO."""
_OURS: Final = frozenset({StatusCode.INTERNAL, StatusCode.UNAVAILABLE})
"""With these the span of a call is an error."""

log = logging.getLogger("jobwire.rpc")


class PeerGone(Exception):
    """A message could not be written: nobody is there to be told anything."""


class Refused(Exception):
    """A call has failed: its caller is to be told the refusal. The log has been told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Caller(Protocol):
    """Whoever calls."""

    def peer(self) -> str:
        """As the log names it."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The headers of the call."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What its certificate says, where there is one."""


class Listener(Caller, Protocol):
    """Whoever is told by a stream: the part of gRPC's context that the services use."""

    def send_initial_metadata(self, metadata: Any, /) -> Awaitable[None]: ...

    def write(self, message: bytes, /) -> Awaitable[None]: ...


class Codec(NamedTuple):
    """How messages travel."""

    read: Callable[[type[Message], bytes], Message]
    """Raises DecodeError, or a JobwireError that says more."""
    write: Callable[[Message], bytes]


PROTO: Final = Codec(
    lambda request_class, raw: request_class.FromString(raw), lambda message: message.SerializeToString()
)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of the contract, and the coroutine that serves it."""

    path: str
    """Such as `/jobwire.v1.JobService/GetJob`."""
    name: str
    """Such as `GetJob`."""
    request_class: type[Message]
    response_class: type[Message]
    is_stream: bool
    behavior: Callable[..., Awaitable[Any]] | None
    """`(request, context) -> response`, or for a stream `(request, context) -> None`. None = not built."""
    meter: Meter
    waits: bool = False
    """It answers once, perhaps after minutes. Its service limits such calls, as streams: among those that have work to
    do they would keep others out."""

    def built(self) -> Callable[..., Awaitable[Any]]:
        if self.behavior is None:
            missing = f"{self.name} is in the contract, but this version of the server does not have it yet"
            raise JobwireError(Reason.NOT_BUILT, missing)
        return self.behavior


async def written(writing: Awaitable[None]) -> None:
    """Awaits it. Whatever goes wrong there, nobody reads any more: PeerGone."""
    try:
        await writing
    except Exception as error:
        raise PeerGone from error


class Gate:
    """Knows what is under way in the methods of one server, and lets calls in."""

    def __init__(self, *, calls_in_flight: int, access: Access | None = None, traces: Traces | None = None) -> None:
        """`access` None: nobody has to say who he is, and everybody may do anything."""
        self._limit = calls_in_flight
        self._access = access
        self._traces = traces
        self._calls = 0
        self._open = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(self, method: Method, raw: bytes, caller: Caller, codec: Codec) -> bytes:
        """What a method that answers once says, written as `codec` has it. Raises Refused."""
        if self._traces is None:
            return await self._answer(method, raw, caller, codec)
        return await self._in_span(self._traces, method, caller, self._answer(method, raw, caller, codec))

    async def _answer(self, method: Method, raw: bytes, caller: Caller, codec: Codec) -> bytes:
        self._enter()
        began, code = method.meter.begin(), StatusCode.OK
        try:
            self._let_in(method, caller)
            behavior = method.built()
            weight = 0 if method.waits else 1
            self._admit(weight)
            self._calls += weight
            try:
                answer: Message = await behavior(_parsed(method, raw, codec), caller)
                return codec.write(answer)
            finally:
                self._calls -= weight
        except (asyncio.CancelledError, aio.AbortError):
            code = StatusCode.CANCELLED
            raise
        except Exception as error:  # whatever it is, the caller gets a status and no text of it
            told = _told(error, method, caller)
            code = told.code
            raise Refused(told) from error
        finally:
            method.meter.end(began, code)
            self._leave()

    def unary(self, method: Method) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """A method that answers once, for gRPC."""

        async def call(raw: bytes, context: Context) -> bytes:
            try:
                return await self.answer(method, raw, context, PROTO)
            except Refused as refused:
                told = refused.refusal
            return await context.abort(told.code, told.message, told.trailers())

        return call

    async def feed(self, method: Method, raw: bytes, listener: Listener, codec: Codec) -> None:
        """Lets a method write to its listener as often as it likes, until one of them ends it. Raises Refused. The
        services limit streams."""
        if self._traces is None:
            await self._feed(method, raw, listener, codec)
        else:
            await self._in_span(self._traces, method, listener, self._feed(method, raw, listener, codec))

    async def _feed(self, method: Method, raw: bytes, listener: Listener, codec: Codec) -> None:
        self._enter()
        began, code = method.meter.begin(), StatusCode.OK
        try:
            self._let_in(method, listener)
            async with self._while_let_in(method, listener):
                await method.built()(_parsed(method, raw, codec), listener)
        except (asyncio.CancelledError, aio.AbortError):
            code = StatusCode.CANCELLED
            raise
        except PeerGone:
            code = StatusCode.CANCELLED
        except Exception as error:  # whatever it is, the caller gets a status and no text of it
            told = _told(error, method, listener)
            code = told.code
            raise Refused(told) from error
        finally:
            method.meter.end(began, code)
            self._leave()

    def stream(self, method: Method) -> Callable[[bytes, Context], Awaitable[None]]:
        """The same for gRPC."""

        async def call(raw: bytes, context: Context) -> None:
            try:
                await self.feed(method, raw, context, PROTO)
                return
            except Refused as refused:
                told = refused.refusal
            await context.abort(told.code, told.message, told.trailers())

        return call

    async def _in_span(self, traces: Traces, method: Method, caller: Caller, call: Awaitable[T]) -> T:
        peer = caller.peer()
        told = {"rpc.system": "connect_rpc" if peer.startswith("http") else "grpc", "network.peer.address": peer}
        with traces.call(method.path, caller.invocation_metadata() or (), told) as span:
            try:
                return await call
            except Refused as refused:
                code, reason = refused.refusal.code, refused.refusal.reason
                failed(span, code=number(code), reason=reason.value, is_ours=code in _OURS)
                raise

    def close(self) -> None:
        """From now on new unary calls are refused; those under way go on."""
        self._closing = True

    async def idle(self) -> None:
        """Returns when nothing is under way."""
        await self._idle.wait()

    def _let_in(self, method: Method, caller: Caller) -> None:
        """Before anything of what the caller has sent is looked at. A call has a context of its own."""
        if self._access is not None:
            principal_name.set(self._access.admit(method.path, caller).name)

    @asynccontextmanager
    async def _while_let_in(self, method: Method, caller: Caller) -> AsyncIterator[None]:
        """Ends what is done within, with the refusal, once the caller would be let in no more."""
        if self._access is None:
            yield
            return
        access, doing = self._access, asyncio.current_task()
        assert doing is not None
        refused: JobwireError | None = None

        async def look() -> None:
            nonlocal refused
            while refused is None:
                await asyncio.sleep(LET_IN_FOR)
                try:
                    access.admit(method.path, caller)
                except JobwireError as error:
                    refused = error
            doing.cancel()

        looking = asyncio.create_task(look())
        try:
            yield
        except asyncio.CancelledError:
            if refused is None or doing.uncancel():
                raise  # the caller itself, or the server's end
            raise refused from None
        finally:
            looking.cancel()

    def _admit(self, weight: int) -> None:
        if self._closing:
            raise JobwireError(Reason.SERVER_DRAINING, "this server is going away: reconnect")
        if self._calls + weight > self._limit:
            raise JobwireError(
                Reason.TOO_MANY_CALLS,
                f"this server works on {self._limit} calls at once, and that many are under way",
                retry_after=CALL_RETRY,
                metadata={"limit": str(self._limit)},
            )

    def _enter(self) -> None:
        self._open += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()


def _parsed(method: Method, raw: bytes, codec: Codec) -> Message:
    try:
        return codec.read(method.request_class, raw)
    except DecodeError as error:
        raise JobwireError(Reason.INVALID_MESSAGE, f"the bytes are not the message that {method.name} takes") from error


def _told(error: Exception, method: Method, caller: Caller) -> Refusal:
    """What the caller is told; the log is told more of it when the fault is ours."""
    told = refusal(error)
    log.log(
        _LEVELS.get(told.code, logging.INFO),
        "%s from %s: %s %s: %s",
        method.name,
        caller.peer(),
        told.code.name,
        told.reason.value,
        # Ids and names in it came from a caller: no line breaks, no terminal codes.
        told.message.encode("unicode_escape").decode("ascii"),
        exc_info=error if told.reason is Reason.INTERNAL else None,
        extra=fields(rpc=method.name, peer=caller.peer(), code=told.code.name, reason=told.reason.value),
    )
    return told
