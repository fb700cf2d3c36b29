"""`jobwire bench` against a real server, and `jobwire completion`."""

from __future__ import annotations

import signal
import subprocess

import pytest
from tests.cli.conftest import PATIENCE, Shell


def counts_of_benches(jobwire: Shell) -> dict[str, int]:
    """Jobs in each queue of a bench."""
    told = [each for each in jobwire("queues", "--output", "json").lines if each["name"].startswith("bench-")]
    return {each["name"]: sum(int(count.get("count", 0)) for count in each.get("counts", ())) for each in told}


def test_a_bench_tells_rate_and_latencies_and_leaves_no_jobs(jobwire: Shell) -> None:
    ran = jobwire("bench", "--jobs", "250", "--batch", "100", "--output", "json")
    assert ran.code == 0, ran.err
    assert ran.json["completed"] == ran.json["jobs"] == 250
    assert ran.json["lives_per_second"] == pytest.approx(250 / ran.json["seconds"], rel=0.01)
    for name in ("create_call_ms", "create_to_handler_ms"):
        assert 0 < ran.json[name]["p50"] <= ran.json[name]["p95"] <= ran.json[name]["p99"]
    assert set(counts_of_benches(jobwire).values()) == {0}


def test_a_bench_at_a_rate_takes_its_time(jobwire: Shell) -> None:
    ran = jobwire("bench", "--jobs", "21", "--batch", "1", "--rate", "40", "--output", "json")
    assert ran.json["seconds"] >= 0.5, "the last of them is due after half a second"
    assert "lives" in jobwire("bench", "--jobs", "1").out


def test_ctrl_c_ends_a_bench_and_its_jobs_go(jobwire: Shell) -> None:
    before = counts_of_benches(jobwire).keys()
    words = jobwire.words("bench", "--jobs", "1000000", "--work", "5ms")
    with subprocess.Popen(words, env=jobwire.environment, stderr=subprocess.PIPE, text=True) as bench:
        while not any(counts_of_benches(jobwire)[name] for name in counts_of_benches(jobwire).keys() - before):
            assert bench.poll() is None, bench.communicate()
        bench.send_signal(signal.SIGINT)
        _, said = bench.communicate(timeout=PATIENCE)
    assert (bench.returncode, "Traceback" in said) == (130, False), said
    assert set(counts_of_benches(jobwire).values()) == {0}


def test_a_bench_without_a_server_says_so(jobwire: Shell) -> None:
    ran = jobwire("bench", "--address", "127.0.0.1:1")
    assert (ran.code, "cannot reach" in ran.err) == (3, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(jobwire: Shell, shell: str) -> None:
    ran = jobwire("completion", shell)
    assert (ran.code, f"_JOBWIRE_COMPLETE={shell}_complete" in ran.out) == (0, True)


def test_what_the_shell_then_asks_for_is_answered(jobwire: Shell) -> None:
    jobwire.environment |= {"_JOBWIRE_COMPLETE": "bash_complete", "COMP_WORDS": "jobwire can", "COMP_CWORD": "1"}
    assert "plain,cancel" in jobwire.process().out
