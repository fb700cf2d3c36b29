"""Channels with the settings that jobwire's streams need."""

from __future__ import annotations

from typing import Final

import grpc

DEFAULT_TARGET: Final = "127.0.0.1:7272"

# A peer that is gone without a word is noticed within 30 s. The server allows a ping every 10 s.
# The channel's own reconnecting stays quicker than that of its users, who back off by themselves.
OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def open_channel(target: str) -> grpc.aio.Channel:
    """For the event loop it is called in."""
    return grpc.aio.insecure_channel(target, options=OPTIONS)


def open_thread_channel(target: str) -> grpc.Channel:
    """For threads, on a connection of its own: one that a stopped event loop has left full holds up no heartbeat."""
    return grpc.insecure_channel(target, options=(*OPTIONS, ("grpc.use_local_subchannel_pool", 1)))
