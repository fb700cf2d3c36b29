from __future__ import annotations

import shutil

import pytest
from benchmarks import languages
from benchmarks.lives import Miscounted

FIGURES = [
    "CreateJob, 1 in flight",
    "CreateJob, 16 in flight",
    "CreateJob, 64 in flight",
    "BatchCreateJobs of 100, 2 in flight",
    "BatchCreateJobs of 1000, 2 in flight",
    "claim and settle, 500 at a time",
]


def test_go_and_python_tell_the_same_figures_of_work_that_the_server_counts() -> None:
    if shutil.which("go") is None:
        pytest.skip("Go: there is none on PATH")
    rates = languages.measure(languages.programs(), [("sqlite", 1), ("valkey", 2)], runs=1, seconds=0.05)
    assert [*rates] == [(language, *store) for store in (("sqlite", 1), ("valkey", 2)) for language in ("Python", "Go")]
    for figures in rates.values():
        assert [*figures] == FIGURES
        assert all(rate > 0 for [rate] in figures.values())
    told = languages.table(rates, runs=1)
    assert "| | Python, sqlite | Go, sqlite | Python, valkey, 2 processes | Go, valkey, 2 processes |" in told
    assert [row.split(" | ")[0][2:] for row in told.splitlines()[4:]] == FIGURES


def test_a_program_that_did_nothing_has_no_figures() -> None:
    with pytest.raises(Miscounted):
        languages.measure({"Nothing": ["true"]}, [("memory", 1)], runs=1, seconds=0.05)
