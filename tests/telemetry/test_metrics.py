"""Numbers for Prometheus: how they count, how they are written, and how processes share them."""

from __future__ import annotations

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobwire_server.telemetry.metrics import Cells, Registry, heading, sample


def read(registry: Registry) -> dict[str, float]:
    """Sample with its labels → value, as Prometheus reads it."""
    families = text_string_to_metric_families("\n".join([*registry.lines(), ""]))
    return {
        each.name + "".join(f" {value}" for value in each.labels.values()): each.value
        for family in families
        for each in family.samples
    }


def test_a_counter_counts_for_each_label_and_asking_again_gives_the_same() -> None:
    registry = Registry()
    registry.counter("a_total", "A.", {"of": "x"}).add()
    registry.counter("a_total", "A.", {"of": "x"}).add(2.5)
    registry.counter("a_total", "A.", {"of": "y"})
    assert read(registry) == {"a_total x": 3.5, "a_total y": 0}


def test_a_gauge_falls() -> None:
    registry = Registry()
    gauge = registry.gauge("a", "A.")
    gauge.add(3)
    gauge.add(-1)
    assert read(registry) == {"a": 2}


def test_a_histogram_counts_what_is_at_a_bound_below_it() -> None:
    registry = Registry()
    histogram = registry.histogram("a", "A.", (0.5, 2))
    for value in (0.1, 0.5, 0.6, 2, 2.1):
        histogram.observe(value)
    assert read(registry) == {
        "a_bucket 0.5": 2,
        "a_bucket 2": 4,
        "a_bucket +Inf": 5,
        "a_count": 5,
        "a_sum": pytest.approx(5.3),
    }


def test_a_sparse_series_shows_from_its_first_count_on() -> None:
    registry = Registry()
    registry.histogram("a", "A.", (1,), {"of": "x"}, sparse=True)
    counter = registry.counter("b_total", "B.", {"of": "y"}, sparse=True)
    assert read(registry) == {}
    counter.add()
    assert read(registry) == {"b_total y": 1}


def test_a_label_may_hold_any_text() -> None:
    text = 'a "quoted" \\ back\nslash é'
    [family] = text_string_to_metric_families(
        "\n".join([*heading("a", "gauge", "A."), sample("a", {"x": text}, 1), ""])
    )
    assert [each.labels for each in family.samples] == [{"x": text}]


def test_processes_that_forked_are_added_up_and_a_successor_goes_on() -> None:
    cells = Cells(2)

    def work(process: int) -> None:
        registry = Registry(cells, process)
        registry.counter("a_total", "A.").add(process + 1)
        registry.gauge("b", "B.").add(10)

    for process in (0, 1, 1):  # the last one takes the place of one that has died, and left its gauge behind
        pid = os.fork()
        if pid == 0:
            work(process)
            os._exit(0)
        os.waitpid(pid, 0)
    asked = Registry(cells, 0)
    asked.counter("a_total", "A.")
    asked.gauge("b", "B.")
    assert read(asked) == {"a_total": 5, "b": 10}  # whoever asks has begun anew as well


def test_more_series_than_there_is_room_for_are_refused() -> None:
    registry = Registry()
    for number in range(8192):
        registry.counter("a_total", "A.", {"of": str(number)})
    with pytest.raises(RuntimeError, match="more series"):
        registry.counter("a_total", "A.", {"of": "one more"})
