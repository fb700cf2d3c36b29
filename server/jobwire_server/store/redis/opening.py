"""What has to hold of an engine before it may be used as a store, and what it promises."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

from jobwire_server.store.base import CannotOpen, StoreUnavailable
from jobwire_server.store.copying import half_filled
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis import keys
from jobwire_server.store.redis.link import Link, new_call_id
from jobwire_server.store.redis.scripts import Answer, Call, commands, script
from jobwire_server.store.redis.topology import Topology

_OLDEST: Final = {"Redis": (7, 0), "Valkey": (7, 2)}

_DURABILITY: Final = {"always": "fsynced", "everysec": "everysec", "no": "none"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine says of itself."""

    name: str
    """With its version."""
    durability: str
    """What an OK means; see StoreInfo."""
    since: int
    """When the store in it came into being."""


async def check_kind(link: Link, name: str, topology: Topology) -> None:
    """Raises CannotOpen, with that name, where the URL should say otherwise what the engine is."""
    try:
        info = await link.engine_info()
    except StoreUnavailable:  # it may answer in a moment, and whoever calls next waits for that
        return
    mode = info.get("server_mode") or info.get("redis_mode")  # as Valkey has it, and Redis
    if mode == "sentinel":
        raise CannotOpen(f"{name} is a Sentinel: redis+sentinel://HOST:PORT/SERVICE names it as one")
    if mode == "cluster" and topology is not Topology.CLUSTER:
        raise CannotOpen(f"{name} is a node of a cluster: redis+cluster://HOST:PORT finds the one that has the keys")
    if info.get("role") == "slave" and topology is Topology.STANDALONE:
        raise CannotOpen(
            f"{name} is a replica of {info.get('master_host')}:{info.get('master_port')}, and cannot be written: name"
            " the primary, or its Sentinels as redis+sentinel://HOST:PORT/SERVICE"
        )


async def look_at(link: Link, name: str, schema_version: int, replicas: int) -> Engine:
    """Makes the store when there is none, on so many replicas too. Raises CannotOpen, with that name, for what will
    not do."""
    wanted = [str(schema_version), str(keys.PARTITIONS), *commands()]
    call: Call[list[Any]] = Call(script("open"), to_json(wanted), Answer.content)
    schema, *others = call.read(await link.run(call, new_call_id()))
    if schema is False:
        raise CannotOpen(
            f"{name} does not let its user run {others[0]} on the keys of this prefix: give it the rights in "
            "deploy/redis/users.acl"
        )
    partitions, create_time, origin = others
    if (schema, partitions) != (str(schema_version), str(keys.PARTITIONS)):
        raise CannotOpen(
            f"{name} has schema {schema} in {partitions} partition(s), and this server knows "
            f"schema {schema_version} in {keys.PARTITIONS} only: start the version of jobwire that wrote it, or "
            "choose another database or prefix"
        )
    if origin:
        raise CannotOpen(half_filled(name, origin.partition(" ")[2]))
    info = await link.engine_info()
    engine = _engine(info)
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "unknown":
        _log.warning("%s does not tell its maxmemory-policy; it must be noeviction", name)
    elif policy != "noeviction":
        raise CannotOpen(
            f"{name} evicts keys when its memory is full (maxmemory-policy {policy}), which would "
            "lose jobs: set maxmemory-policy to noeviction"
        )
    durability = "replicated" if replicas else await _durability(link, info)
    return Engine(engine, durability, int(create_time or 0))


def _engine(info: dict[str, str]) -> str:
    """The engine with its version. Raises CannotOpen for one that lacks what the scripts need."""
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or "of unknown version"
    numbers = version.split(".")
    if len(numbers) > 1 and all(part.isdigit() for part in numbers[:2]):
        oldest = _OLDEST[name]
        if tuple(map(int, numbers[:2])) < oldest:
            raise CannotOpen(f"{name} {version} is too old: {oldest[0]}.{oldest[1]} is the oldest that will do")
    return f"{name} {version}"


async def _durability(link: Link, info: dict[str, str]) -> str:
    """What an OK of this engine means, as far as it tells."""
    if info.get("aof_enabled") != "1":
        return "none" if "aof_enabled" in info else "unknown"
    return _DURABILITY.get(await link.setting("appendfsync") or "", "unknown")
