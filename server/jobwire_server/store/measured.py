"""A store whose calls are timed and counted, once a call and not once an item."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, cast

from jobwire_server.store.base import Claims, Store
from jobwire_server.telemetry.metrics import ITEMS, SECONDS, Counter, Histogram, Registry, Timed

VERBS: Final = sorted(
    name
    for name, _ in inspect.getmembers(Store, inspect.iscoroutinefunction)
    if not name.startswith("_") and name not in ("open", "close")
)

_Verb = Callable[..., Awaitable[Any]]


def measured(store: Store, registry: Registry) -> Store:
    """The same store, measured."""
    return cast("Store", _Measured(store, registry))


def step_timer(steps: Iterable[str], registry: Registry) -> Timed:
    """For what a store does within a call: `steps` are all that there are."""
    about = "How long a script of Redis took, there and back, or a commit of SQLite."
    seconds = {
        step: registry.histogram("jobwire_store_step_seconds", about, SECONDS, {"step": step}, sparse=True)
        for step in steps
    }

    def timed(step: str, took: float) -> None:
        seconds[step].observe(took)

    return timed


class _Measured:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        for verb in VERBS:
            seconds = registry.histogram(
                "jobwire_store_call_seconds", "How long calls of the store took.", SECONDS, {"verb": verb}, sparse=True
            )
            errors = registry.counter("jobwire_store_errors_total", "Calls that the store has refused.", {"verb": verb})
            call = _timed(getattr(store, verb), seconds, errors)
            if (items := _ITEMS.get(verb)) is not None:
                sizes = registry.histogram(
                    "jobwire_store_call_items",
                    "Items of one call; of a claim, the jobs it got.",
                    ITEMS,
                    {"verb": verb},
                    sparse=True,
                )
                call = _counted(call, items, sizes)
            setattr(self, verb, call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _timed(verb: _Verb, seconds: Histogram, errors: Counter) -> _Verb:
    async def call(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return await verb(*arguments, **options)
        except Exception:
            errors.add()
            raise
        finally:
            seconds.observe(time.perf_counter() - began)

    return call


def _counted(verb: _Verb, items: Callable[[Any, Any], int], sizes: Histogram) -> _Verb:
    async def call(*arguments: Any, **options: Any) -> Any:
        answer = await verb(*arguments, **options)
        sizes.observe(items(arguments, answer))
        return answer

    return call


def _given(arguments: Any, _: Any) -> int:
    return len(arguments[0])


def _claimed(_: Any, answer: Claims) -> int:
    return sum(len(each.jobs) for each in answer.claimed)


_ITEMS: Final[dict[str, Callable[[Any, Any], int]]] = {
    "create": _given,
    "move": _given,
    "renew": _given,
    "delete": _given,
    "get": _given,
    "claim": _claimed,
    "promote": lambda _, answer: int(answer),
    "purge": lambda _, answer: int(answer),
}
