"""How often a server calls its engine, script by script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis import Redis

from benchmarks.servers import Server
from jobwire_server.store.redis.scripts import script

TIMED: Final = frozenset({"overdue", "promote", "purge", "queues", "seen", "watch", "workers"})
"""Scripts that timers run, with jobs and without."""
_LONGEST: Final = 100_000
"""Calls that the engine remembers."""


@contextmanager
def engine_calls(server: Server) -> Iterator[Counter[str]]:
    """Calls made within the context, by the name of their script; filled in when it is left. On a store that is no
    process of its own there are none."""
    calls: Counter[str] = Counter()
    if not server.engine_url:
        yield calls
        return
    with Redis.from_url(server.engine_url) as client:
        client.config_set("slowlog-max-len", _LONGEST)
        client.config_set("slowlog-log-slower-than", 0)  # every command is slow enough
        client.slowlog_reset()
        yield calls
        client.config_set("slowlog-log-slower-than", -1)
        entries: list[dict[str, Any]] = client.slowlog_get(_LONGEST)
        commands = (entry["command"].decode(errors="replace").split(" ", 2) for entry in entries)
        calls.update(_names()[words[1]] for words in commands if words[0].upper() == "EVALSHA")


@cache
def _names() -> dict[str, str]:
    """Of the scripts, by their digest."""
    found = files("jobwire_server.store.redis").joinpath("lua").iterdir()
    names = [path.name.removesuffix(".lua") for path in found if path.name.endswith(".lua")]
    return {script(name).sha: name for name in names}
