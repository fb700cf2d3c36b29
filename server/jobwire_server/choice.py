"""`--store auto`: the Redis that answers, else SQLite, decided once."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  # its name in redis-py
    RedisError,
)

from jobwire_server.config import DEFAULT_STORE, ConfigError
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.redis.connection import ask
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.topology import parse

AUTO: Final = "auto"

DEFAULT_REDIS: Final = "redis://127.0.0.1:6379/0"

_ANSWERS_WITHIN: Final = 1.0
"""Seconds."""

_log = logging.getLogger("jobwire")


def chosen(store: str) -> str:
    """The URL of the store to open: that of JOBWIRE_REDIS_URL if somebody answers there, for `auto`. Says which, since
    two servers that decide differently have two stores. Raises ConfigError."""
    if store != AUTO:
        return store
    url = os.environ.get("JOBWIRE_REDIS_URL") or DEFAULT_REDIS
    try:
        name = parse(url).masked
    except CannotOpen as error:
        raise ConfigError(f"JOBWIRE_REDIS_URL: {error}") from error
    file = Path(DEFAULT_STORE.removeprefix("sqlite:///"))
    if reason := asyncio.run(_silence(url)):
        _log.warning(
            "--store auto: %s does not answer (%s), so jobs are kept in %s until this server ends; jobs that are in"
            " Redis it does not see",
            name,
            reason,
            DEFAULT_STORE,
        )
        return DEFAULT_STORE
    _log.warning("--store auto: jobs are kept in %s, which answers", name)
    if file.exists():
        _log.warning("%s is here as well, and jobs that are in it are not seen", file)
    return url


async def _silence(url: str) -> str:
    """Why nobody answers there; empty when somebody does, be it with a refusal: that is no reason to look elsewhere."""
    address = parse(url)
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN):
            await ask(address.told(await Route(address).find()), "PING")
    except TimeoutError:
        return f"not within {_ANSWERS_WITHIN:g} s"
    except AuthenticationError:  # to redis-py it is a lost connection
        return ""
    except (ConnectionError, OSError) as error:
        return str(error) or type(error).__name__
    except RedisError:
        return ""
    return ""
