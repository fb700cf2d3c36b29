"""How often a server calls its engine, script by script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis

from benchmarks.servers import Server

_LONGEST: Final = 100_000
"""Calls that the engine remembers."""


@contextmanager
def engine_calls(server: Server) -> Iterator[Counter[str]]:
    """Calls made within the context, by the digest of their script; filled in when it is left. On a store that is no
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
        commands = (entry["command"].split(b" ", 2) for entry in entries)
        calls.update(words[1].decode() for words in commands if words[0].upper() == b"EVALSHA")
