"""A store of the demo's own, and nothing left of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis


@dataclass(frozen=True, slots=True)
class OwnStore:
    """Where the demo keeps its jobs."""

    url: str
    servers: int
    """As many as show what it can: a SQLite file belongs to one process."""


class CannotUse(Exception):
    """The demo cannot run on that store; the reason is for a person."""


@contextmanager
def own_store(url: str, folder: Path, name: str) -> Iterator[OwnStore]:
    """On Redis: keys that begin with `name`, deleted at the end. On SQLite: a new file, in `folder` unless the URL says
    where. CannotUse when that would touch what is there."""
    scheme = urlsplit(url).scheme
    if "+" in scheme:
        raise CannotUse(f"{scheme}:// names no engine by itself: name the primary, as redis://HOST:PORT")
    if scheme in {"redis", "rediss"}:
        server_url, client_url = _with_prefix(url, name)
        with _engine(client_url) as engine:
            try:
                yield OwnStore(server_url, servers=2)
            finally:
                _forget(engine, name)
        return
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///")).absolute()
        if file.exists():
            raise CannotUse(f"{file} is there already: name a new file, or leave it out for a temporary one")
        try:
            yield OwnStore(f"sqlite:///{file}", servers=1)
        finally:
            for beside in ("", "-wal", "-shm", ".lock"):
                file.with_name(file.name + beside).unlink(missing_ok=True)
        return
    yield OwnStore(url or f"sqlite:///{folder}/jobs.db", servers=1)


def _with_prefix(url: str, prefix: str) -> tuple[str, str]:
    """The same for a server, with that prefix, and for redis-py, which knows no prefix."""
    parts = urlsplit(url)
    options = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"prefix", "pool"}]
    ours = urlencode([*options, ("prefix", prefix)])
    return urlunsplit(parts._replace(query=ours)), urlunsplit(parts._replace(query=urlencode(options)))


@contextmanager
def _engine(url: str) -> Iterator[redis.Redis]:
    """A client of it. CannotUse when it does not answer."""
    with redis.Redis.from_url(url) as engine:
        try:
            engine.ping()
        except redis.RedisError as error:
            raise CannotUse(str(error)) from error
        yield engine


def _forget(engine: redis.Redis, prefix: str) -> None:
    pattern = f"{{{prefix}:0}}:*"
    try:
        keys = list(engine.scan_iter(pattern, count=1000))
        for first in range(0, len(keys), 1000):
            engine.unlink(*keys[first : first + 1000])
    except redis.RedisError as error:
        print(f"The demo's keys could not be deleted, they are {pattern}: {error}", file=sys.stderr)
