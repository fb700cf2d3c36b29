"""What a store is, for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """As of one moment."""

    kind: str
    """`sqlite`, `memory`, `redis`."""
    engine: str
    """The engine with its version, such as `SQLite 3.54.0`."""
    url: str
    """Where it is, with any password masked."""
    durability: str
    """What an OK means, as verified at start: `fsynced`, `none`, …"""
    schema_version: int
    """Of what is stored."""
    now: int
    """The store's clock."""
    recovered_at: int
    """When it last came back from an outage (0 = never)."""
    used_bytes: int
    """Of the data, or, where other things may share it, of the engine's memory."""
    client_count: int = 0
    """Connections that the engine has, of others too; 0 = it has none but ours."""
    operations_per_second: float = 0.0
    """That the engine counts of itself, of everybody's; 0 = it does not."""
