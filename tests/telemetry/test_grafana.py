"""The dashboard for Grafana and the alerts ask for what there is, by labels that it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROW = re.compile(r"^\| `(\w+)` \| ([^|]*)\|", re.MULTILINE)
METRIC = re.compile(r"\b((?:jobwire|grpc_server|process)_\w+)(?:\{([^}]*)\})?")
ADDED = {"le", "job", "instance"}
"""Labels that a histogram's buckets have, and those that Prometheus adds."""


@pytest.fixture
def panels(repository: Path) -> list[dict[str, Any]]:
    board = json.loads((repository / "deploy/grafana/jobwire.json").read_text(encoding="utf-8"))
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.fixture
def told(repository: Path) -> dict[str, set[str]]:
    """Metric → its labels, by docs/metrics.md, which tests/web/test_metrics.py compares with what is served."""
    page = (repository / "docs/metrics.md").read_text(encoding="utf-8")
    found = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in ROW.findall(page)}
    calls = found["grpc_server_started_total"]
    return found | {
        "grpc_server_handled_total": calls | {"grpc_code"},
        "grpc_server_handling_seconds": calls,
    }


def queries(panels: list[dict[str, Any]]) -> Iterator[str]:
    return (target["expr"] for panel in panels for target in panel["targets"])


def alerts(repository: Path) -> list[str]:
    rules = (repository / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    return re.findall(r"^ +expr: (.+)$", rules, re.MULTILINE)


def test_each_query_names_metrics_and_labels_that_there_are(
    panels: list[dict[str, Any]], told: dict[str, set[str]], repository: Path
) -> None:
    assert len(alerts(repository)) > 4
    for query in [*queries(panels), *alerts(repository)]:
        named = [(re.sub(r"_(bucket|sum|count)$", "", name), labels) for name, labels in METRIC.findall(query)]
        assert named, query
        known: set[str] = set(ADDED)
        for metric, labels in named:
            assert metric in told, query
            known |= told[metric]
            assert set(re.findall(r"(\w+)\s*[=!]~?", labels)) <= told[metric] | ADDED, query
        for grouped in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(re.findall(r"\w+", grouped)) <= known, query


def test_each_panel_says_what_it_shows_and_stands_by_itself(panels: list[dict[str, Any]]) -> None:
    assert len(panels) > 10
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_all_that_is_told_of_jobs_and_store_is_on_it(panels: list[dict[str, Any]], told: dict[str, set[str]]) -> None:
    shown = " ".join(queries(panels))
    left_out = {name for name in told if name not in shown}
    assert left_out == {
        "grpc_server_started_total",
        "jobwire_store_info",
        "jobwire_queues",
        "jobwire_queue_paused",
        "process_start_time_seconds",
        "process_open_fds",
    }
