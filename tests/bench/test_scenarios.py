from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from benchmarks import __main__ as command
from benchmarks import lives, page, report
from benchmarks.engine_calls import TIMED, engine_calls
from benchmarks.figures import Figure, at_least, at_most, from_json, percentile
from benchmarks.scenario import FULL, TINY, Outcome, Scenario, Setup
from benchmarks.scenarios import SCENARIOS, backlog, many_workers, whole_lives
from benchmarks.servers import running, server
from click.testing import CliRunner


@pytest.mark.parametrize(
    ("engine", "scenario"),
    [
        # All of them where everything is measured; on SQLite those that measure less there, and the first.
        *(pytest.param("valkey", scenario, id=f"valkey-{scenario.name}") for scenario in SCENARIOS),
        *(
            pytest.param("sqlite", scenario, id=f"sqlite-{scenario.name}")
            for scenario in (whole_lives.SCENARIO, many_workers.SCENARIO, backlog.SCENARIO)
        ),
    ],
)
async def test_a_scenario_answers_its_figures_and_what_the_servers_count(engine: str, scenario: Scenario) -> None:
    told: list[str] = []
    outcome = await scenario.measure(Setup(engine, TINY, told.append))
    assert told, "people who wait are told nothing"
    assert outcome.counted["created"] >= outcome.counted["completed"]
    assert outcome.counted["created"] > 0
    names = [(figure.name, figure.batch) for figure in outcome.figures]
    assert len(set(names)) == len(names)
    for figure in outcome.figures:
        assert figure.rounds, figure.name
        assert from_json(json.loads(json.dumps(figure.as_json()))).name == figure.name


async def test_a_count_that_is_not_what_was_done_is_refused() -> None:
    with server("memory") as running:
        await lives.creates(running, jobs=3, batch=3)
        assert await lives.counted(running, created=3, completed=0) == {"created": 3, "completed": 0}
        for created, completed in ((4, 0), (2, 0), (3, 1)):
            with pytest.raises(lives.Miscounted, match="the store counts 0 COMPLETED, 3 QUEUED"):
                await lives.counted(running, created=created, completed=completed)


async def test_calls_of_the_engine_are_counted_by_the_name_of_their_script() -> None:
    with server("valkey") as running:
        await lives.creates(running, jobs=1, batch=1)
        with engine_calls(running) as calls:
            for _ in range(3):
                await lives.creates(running, jobs=2, batch=2)
    assert calls["create"] == 3
    assert calls.keys() <= {"create"} | TIMED


def scripted(name: str, *figures: Figure, needs_engine: bool = False) -> Scenario:
    async def measure(setup: Setup) -> Outcome:
        setup.tell("at work")
        return Outcome({"created": 7, "completed": 7}, figures)

    return Scenario(name, f"what {name} does", f"what {name} promises", measure, weight=1, needs_engine=needs_engine)


LIVES = scripted("whole-lives", *(Figure("whole lives", "/s", [900, 1000, 1250], batch=batch) for batch in (1, 500)))
PROMISED = scripted("two-servers", Figure("as told", "×", [1.5, 2.5, 2.0], at_least(2), at_least(3)), needs_engine=True)
REST = scripted("pick-up", Figure("a rest", "ms", [3.14159]))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a run is published instead, with scenarios that do nothing."""
    monkeypatch.setattr(command, "SCENARIOS", (LIVES, PROMISED, REST))
    for name in ("RESULTS", "CHART", "PAGE", "PEERS"):
        monkeypatch.setattr(command, name, tmp_path / name)
    begin, end = page.begin(report.COMMAND), page.end(report.COMMAND)
    (tmp_path / "PAGE").write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    (tmp_path / "PEERS").write_text(
        json.dumps(
            {
                "machine": {"date": "2026-01-02"},
                "ratios": {"jobwire-redis": {"bullmq": {"median": 2.5, "lowest": 2.25, "highest": 2.75}}},
            }
        )
    )
    return tmp_path


def run(*arguments: str) -> str:
    ran = CliRunner().invoke(command.main, arguments)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_a_whole_run_is_published_as_figures_chart_and_tables_that_belong_together(published: Path) -> None:
    printed = run()
    found = json.loads((published / "RESULTS").read_text())
    assert report.tables(found) + "\n" == printed
    begin, end = page.begin(report.COMMAND), page.end(report.COMMAND)
    assert (published / "PAGE").read_text() == f"before\n{begin}\n{report.section(found)}\n{end}\nafter\n"
    assert (published / "CHART").read_text() == report.chart(found)
    assert found["command"] == "make bench"
    assert found["machine"].keys() == {"cores", "cpu", "kernel", "python", "date"}
    assert {"jobwire", "grpcio"} < found["versions"].keys()


@pytest.mark.parametrize("part", [("--quick",), ("--scenario", "pick-up"), ("--store", "sqlite"), ("--runs", "5")])
def test_a_part_of_it_is_printed_and_not_published(published: Path, part: tuple[str, ...]) -> None:
    assert "a rest" in run(*part)
    assert not (published / "RESULTS").exists()
    assert "old" in (published / "PAGE").read_text()


def test_output_takes_the_figures_with_the_command_that_made_them(published: Path) -> None:
    output = published / "figures.json"
    run("--scenario", "pick-up", "--store", "sqlite", "--runs", "2", "--output", str(output))
    found = json.loads(output.read_text())
    assert found["command"] == "make bench ARGS='--scenario pick-up --store sqlite --runs 2'"
    assert [each["scenario"] for each in found["scenarios"]] == ["pick-up"]
    assert not (published / "RESULTS").exists()


def test_the_tables_say_what_must_hold_what_was_measured_and_whether_it_is_met(published: Path) -> None:
    printed = run("--output", str(published / "figures.json"))
    engine = command.default_stores()[1]
    assert f"| as told | {engine} | ≥ 2 × | met | ≥ 3 × | **not met** | 2.00 × | 1.50 – 2.50 |" in printed
    assert "| as told | sqlite" not in printed
    assert "| whole lives of jobwire-redis beside bullmq |  | ≥ 2 × | met |  |  | 2.50 × | 2.25 – 2.75 |" in printed
    assert "| whole lives | sqlite | /s | 1,000 (900 – 1,250) | 1,000 (900 – 1,250) |" in printed
    assert "| a rest | sqlite | 3.14 ms |  |" in printed
    assert "- pick-up, sqlite: 7 created, 7 completed" in printed


@pytest.mark.parametrize(
    ("arguments", "is_trial"), [((), False), (("--runs", "4"), True), (("--quick", "--runs", "5"), True)]
)
def test_fewer_rounds_and_quick_ones_call_themselves_a_trial(
    published: Path, arguments: tuple[str, ...], is_trial: bool
) -> None:
    assert ("A trial" in run(*arguments, "--output", str(published / "figures.json"))) is is_trial


def test_a_store_that_is_not_here_is_reported_and_not_passed_over(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(published))
    assert "- redis: not measured, there is no such server on this machine" in run("--store", "redis")


def test_a_scenario_that_fails_is_told_by_name_and_nothing_is_published(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure(_: Setup) -> Outcome:
        raise lives.Miscounted("one too many")

    monkeypatch.setattr(command, "SCENARIOS", (Scenario("wrong", "", "", measure, 1), REST))
    ran = CliRunner().invoke(command.main)
    assert ran.exit_code == 1
    assert "- wrong, sqlite: **FAILED**: one too many" in ran.stdout
    assert "| a rest | sqlite |" in ran.stdout, "the others go on"
    assert not (published / "RESULTS").exists()


def test_what_a_process_said_last_is_told_when_its_work_has_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with running([sys.executable, "-c", "print('out of order')"], tmp_path / "log") as process:
            process.wait()
            raise RuntimeError("unavailable")

    with pytest.raises(RuntimeError, match="unavailable"):
        work()
    assert "said last:\nout of order" in capfd.readouterr().err


def test_the_list_names_each_scenario_and_its_promise() -> None:
    listed = run("--list")
    for scenario in SCENARIOS:
        assert f"{scenario.name}: {scenario.what}\n    Promised: {scenario.promises}" in listed


def test_the_chart_has_a_bar_for_each_size_of_a_batch_in_the_group_of_its_store(published: Path) -> None:
    run()
    svg = ElementTree.fromstring((published / "CHART").read_text())
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    bars = ["1 to a call", "1,000", "500 to a call", "1,000"]
    engine = command.default_stores()[1]
    assert texts == [report.MEANS["sqlite"], *bars, report.MEANS[engine], *bars]


def test_what_is_published_belongs_together(repository: Path) -> None:
    text = (repository / "docs" / "performance.md").read_text()
    results = repository / "benchmarks" / "results" / "jobwire.json"
    if not results.exists():
        assert "`make bench` has not been run" in text
        return
    found = json.loads(results.read_text())
    assert report.section(found) in text
    assert report.chart(found) == (repository / "docs" / "figures" / report.CHART).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_behind(number: signal.Signals, repository: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--scenario", "pick-up", "--store", "memory"],
        cwd=repository,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(children := children_of(process.pid)) < 3:  # the server, the one that does nothing, the worker
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) != 0
    assert [child for child in children if runs(child)] == []


def runs(pid: int) -> bool:
    """One that has ended may stay in the list of processes until somebody asks how; in a container nobody may."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1] not in ("", "Z")


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]


@pytest.mark.parametrize(
    ("limit", "holds", "fails"), [(at_least(0.75), 0.75, 0.74), (at_most(3), 3.0, 3.1)], ids=["floor", "ceiling"]
)
def test_a_limit_holds_up_to_itself(limit: Any, holds: float, fails: float) -> None:
    assert limit.holds(holds)
    assert not limit.holds(fails)
    figure = Figure("it", "ms", [fails, fails, holds], limit, limit)
    assert from_json(figure.as_json()) == figure
    assert figure.as_json()["must"]["met"] is False


def test_a_percentile_is_a_time_that_was_measured() -> None:
    times = [float(number) for number in range(100, 0, -1)]
    assert [percentile(times, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_the_sizes_are_those_that_are_promised() -> None:
    assert FULL.runs == report.ENOUGH
    assert FULL.batches == (1, 10, 100, 500)
    assert (FULL.backlogs, FULL.streams) == ((1_000, 1_000_000), 1_000)
