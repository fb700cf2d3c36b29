"""Engines that stand in for each other: with Sentinels, and as a Cluster. Real processes, on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from redis.crc import key_slot
from redis.exceptions import RedisError
from tests.valkey_process import ENGINE, USER, ValkeyProcess

SERVICE: Final = "jobs"

_PATIENCE: Final = 60
"""Seconds for a topology to settle on a busy machine."""


@dataclass(frozen=True)
class Sentinels:
    """Two engines and three Sentinels that watch them."""

    processes: list[ValkeyProcess]
    """The engines."""
    sentinels: list[ValkeyProcess]

    @property
    def url(self) -> str:
        """A test adds its `?prefix=`."""
        return f"redis+sentinel://{USER}@{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}"

    @property
    def primary(self) -> ValkeyProcess:
        """As the first Sentinel has it."""
        with self.sentinels[0].client() as client:
            _, port = cast(
                "tuple[bytes, bytes]", client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            )
        return next(each for each in self.processes if each.port == int(port))

    @property
    def replica(self) -> ValkeyProcess:
        primary = self.primary
        return next(each for each in self.processes if each is not primary)

    def until_whole(self) -> None:
        """Returns once the replica follows and every Sentinel knows of it and of the others: then one can take over."""
        primary = self.primary
        until(lambda: _follows(self.replica), "the replica follows")
        for sentinel in self.sentinels:
            until(partial(_knows_all, sentinel, primary), "the Sentinels know each other")

    def fail_over(self) -> None:
        """As an operator asks for it before a primary is stopped."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)


@contextmanager
def with_sentinels(binary: Path, folder: Path) -> Iterator[Sentinels]:
    """A primary and its replica under three Sentinels that wait two seconds before they act; all killed at the end."""
    with ExitStack() as stack:

        def start(name: str, **options: Any) -> ValkeyProcess:
            own = folder / name
            own.mkdir()
            return _started(stack, ValkeyProcess(binary, own, **options))

        login = {"masteruser": ENGINE, "masterauth": "any"}
        first = start("first", settings=login)
        second = start("second", settings={**login, "replicaof": f"127.0.0.1 {first.port}"})
        watch = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {first.port} 2\n"
            f"sentinel auth-user {SERVICE} {ENGINE}\n"
            f"sentinel auth-pass {SERVICE} any\n"
            f"sentinel down-after-milliseconds {SERVICE} 2000\n"
            f"sentinel failover-timeout {SERVICE} 6000\n"
        )
        sentinels = Sentinels([first, second], [start(f"sentinel-{n}", sentinel=watch) for n in range(3)])
        sentinels.until_whole()
        yield sentinels


@dataclass(frozen=True)
class Cluster:
    """Three primaries and, for the one that owns `slot`, a replica."""

    processes: list[ValkeyProcess]
    slot: int

    @property
    def url(self) -> str:
        """A test adds its `?prefix=`."""
        return f"redis+cluster://{USER}@{','.join(f'127.0.0.1:{each.port}' for each in self.processes)}"

    @property
    def primary(self) -> ValkeyProcess:
        """Who says that the slot is its own: of two, the one that said so last. Raises ValueError where nobody does."""
        claims = {each: _claim_of(each, self.slot) for each in self.processes if each.is_running}
        return max((each for each, epoch in claims.items() if epoch >= 0), key=claims.__getitem__)

    def claims(self, node: ValkeyProcess) -> bool:
        """It says that the slot is its own."""
        return _claim_of(node, self.slot) >= 0

    @property
    def replica(self) -> ValkeyProcess:
        (replica,) = (each for each in self.processes if each.is_running and _is_replica(each))
        return replica

    @property
    def others(self) -> list[ValkeyProcess]:
        """Primaries of other slots."""
        return [each for each in self.processes if each not in (self.primary, self.replica)]

    def fail_over(self) -> None:
        """As an operator asks for it before a primary is stopped."""
        with self.replica.client() as client:
            client.execute_command("CLUSTER", "FAILOVER")

    def until_whole(self) -> None:
        """Returns once the replica follows and all nodes agree: then it can take over."""
        until(lambda: any(_is_replica(each) and _follows(each) for each in self.processes), "the replica follows")
        for node in self.processes:
            until(partial(_knows_a_replica, node), "everybody knows the replica as one")
        self.until_ok()

    def until_ok(self) -> None:
        """Returns once every node takes the cluster for whole."""
        for node in self.processes:
            until(partial(is_ok, node), "the cluster is whole")


@contextmanager
def as_cluster(binary: Path, folder: Path, *, key: str) -> Iterator[Cluster]:
    """Started; the node that owns the slot of `key` has a replica. All killed at the end."""
    slot = key_slot(key.encode())
    with ExitStack() as stack:
        nodes = []
        for n in range(4):
            own = folder / f"node-{n}"
            own.mkdir()
            nodes.append(_started(stack, ValkeyProcess(binary, own, cluster=True)))
        cluster = Cluster(nodes, slot)
        *primaries, replica = nodes
        for node, (first, last) in zip(primaries, ((0, 5460), (5461, 10922), (10923, 16383)), strict=True):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in nodes[1:]:
            with nodes[0].client() as client:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        cluster.until_ok()
        owner = cluster.primary
        with replica.client() as client:
            id = node_id(owner)
            until(lambda: id.encode() in client.execute_command("CLUSTER", "NODES"), "the replica knows its primary")
            client.execute_command("CLUSTER", "REPLICATE", id)
        cluster.until_whole()
        yield cluster


def node_id(node: ValkeyProcess) -> str:
    """What the cluster calls it."""
    with node.client() as client:
        said: bytes = client.execute_command("CLUSTER", "MYID")
    return said.decode()


def until(holds: Callable[[], object], what: str) -> None:
    """Returns when it holds."""
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {_PATIENCE} s: {what}"
        time.sleep(0.05)  # an engine tells nobody: it has to be asked


def _started(stack: ExitStack, process: ValkeyProcess) -> ValkeyProcess:
    process.start()
    stack.callback(_kill_if_running, process)
    return process


def _kill_if_running(process: ValkeyProcess) -> None:
    if process.is_running:
        process.kill()


def _follows(replica: ValkeyProcess) -> bool:
    with replica.client() as client:
        info: dict[str, Any] = client.info("replication")
    return info.get("role") == "slave" and info.get("master_link_status") == "up"


def _knows_all(sentinel: ValkeyProcess, primary: ValkeyProcess) -> bool:
    with sentinel.client() as client:
        known: dict[bytes, bytes] = client.execute_command("SENTINEL", "MASTER", SERVICE)
    return (known[b"num-slaves"], known[b"num-other-sentinels"], known[b"port"]) == (b"1", b"2", b"%d" % primary.port)


def _is_replica(node: ValkeyProcess) -> bool:
    with node.client() as client:
        return bool(client.info("replication")["role"] == "slave")


def _knows_a_replica(node: ValkeyProcess) -> bool:
    with node.client() as client:
        said: bytes = client.execute_command("CLUSTER", "NODES")
    return sum("slave" in line.split()[2] for line in said.decode().splitlines()) == 1


def _claim_of(node: ValkeyProcess, slot: int) -> int:
    """With which epoch it says that the slot is its own; -1 = it does not."""
    try:
        with node.client() as client:
            said: bytes = client.execute_command("CLUSTER", "NODES")
    except RedisError:
        return -1
    (own,) = (line.split() for line in said.decode().splitlines() if "myself" in line)
    ranges = (each.split("-") for each in own[8:] if not each.startswith("["))
    is_its = "master" in own[2] and any(int(each[0]) <= slot <= int(each[-1]) for each in ranges)
    return int(own[6]) if is_its else -1


def is_ok(node: ValkeyProcess) -> bool:
    """It takes the cluster for whole."""
    with node.client() as client:
        said: bytes = client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in said
