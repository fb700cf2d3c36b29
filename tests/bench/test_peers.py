from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import pytest
from benchmarks import page
from benchmarks.peers import __main__ as command
from benchmarks.peers import chart, installing, report
from benchmarks.peers.contestants import CONTESTANTS, FSYNCED, MEANINGS, SOON, WRITTEN, Contestant
from benchmarks.peers.engines import Program
from click.testing import CliRunner

HONEST = "{'jobs': jobs, 'seconds': 0.5, 'completed': jobs}"


@dataclass(frozen=True, slots=True)
class Scripted:
    """A driver that tells what a test wants it to, instead of working."""

    told: str = HONEST
    install: Sequence[Sequence[str]] = ()
    programs: Sequence[Program] = ()
    files: Sequence[Path] = ()

    def steps(self, folder: Path) -> Sequence[Sequence[str]]:
        return self.install

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-c", f"import json, sys; jobs = int(sys.argv[2]); print(json.dumps({self.told}))"]

    def versions(self) -> dict[str, str]:
        return {"scripted": "1.0"}


@contextmanager
def no_engine() -> Iterator[str]:
    yield "nowhere"


def peer(name: str, recipe: Scripted, *, ok_means: str = SOON, programs: Sequence[Program] = ()) -> Contestant:
    return Contestant(name, ok_means, "not at all", recipe, no_engine, programs)


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "INSTALLED", tmp_path / "installed")


def compare(*contestants: Contestant, runs: int = 1, jobs: int = 20) -> dict[str, Any]:
    told = command.compare(contestants, runs=runs, jobs=jobs)
    assert json.loads(json.dumps(told)) == told
    return told | {"command": "make bench-peers"}


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("sqlite", "jobwire-sqlite"),
        ("sqlite", "jobwire-sqlite-worker"),
        ("redis", "jobwire-redis"),
        ("redis", "jobwire-redis-worker"),
        ("redis", "jobwire-redis-always"),
    ],
)
def test_jobwire_completes_what_it_creates_in_each_of_its_contestants(engine: str, name: str) -> None:
    [ours] = [each for each in CONTESTANTS if each.name == name]
    told = compare(ours, jobs=1200)
    assert told["lives_per_second"][name] > 0


def test_a_peer_whose_program_is_missing_is_reported_by_name_and_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    output = tmp_path / "figures.json"
    ran = CliRunner().invoke(command.main, ["--only", "faktory", "--only", "beanstalkd", "--output", str(output)])
    assert ran.exit_code == 0, ran.output
    reasons = {
        "beanstalkd": "no beanstalkd on PATH: apt-get install beanstalkd; no go on PATH: install Go 1.26 or later",
        "faktory": "no faktory on PATH; no redis-server on PATH: apt-get install redis-server; "
        "no go on PATH: install Go 1.26 or later",
    }
    assert json.loads(output.read_text())["not_installed"] == reasons
    for name, reason in reasons.items():
        assert f"{name}: NOT INSTALLED: {reason}" in ran.output
        assert f"| {name} | not installed: {reason} |" in ran.output


def test_a_peer_whose_installation_fails_is_reported_without_a_path_of_this_machine(tmp_path: Path) -> None:
    fails = Scripted(install=[[sys.executable, "-c", "raise SystemExit(f'not from {__name__}')", str(tmp_path)]])
    told = compare(peer("broken", fails), peer("sound", Scripted()))
    assert told["not_installed"].keys() == {"broken"}
    assert told["lives_per_second"].keys() == {"sound"}
    assert "build/peers/broken/install.log" in told["not_installed"]["broken"]
    assert str(tmp_path) not in json.dumps(told)


def test_a_driver_is_installed_once_and_again_when_its_files_change(tmp_path: Path) -> None:
    source = tmp_path / "driver"
    source.write_text("one")
    install = [[sys.executable, "-c", "open('../times', 'a').write('x')"]]
    times = tmp_path / "installed" / "times"
    changing = peer("changing", Scripted(install=install, files=[source]))
    compare(changing)
    compare(changing)
    assert times.read_text() == "x"
    source.write_text("two")
    compare(changing)
    assert times.read_text() == "xx"


@pytest.mark.parametrize(
    "told",
    [
        "{'jobs': jobs, 'seconds': 0.5, 'completed': jobs - 1}",
        "{'jobs': jobs, 'seconds': 0.5, 'completed': jobs + 1}",
        "{'jobs': jobs - 1, 'seconds': 0.5, 'completed': jobs - 1}",
        "{}",
    ],
)
def test_a_peer_whose_counts_do_not_match_fails_the_run(told: str) -> None:
    with pytest.raises(click.ClickException, match="wrong"):
        compare(peer("sound", Scripted()), peer("wrong", Scripted(told)))


def test_a_driver_that_fails_ends_the_run_with_what_it_complained_of() -> None:
    with pytest.raises(click.ClickException, match="ended with 1:\nno server"):
        compare(peer("wrong", Scripted("sys.exit('no server')")))


def test_the_figures_tell_rates_spread_ratios_meaning_versions_and_machine() -> None:
    quick = peer("jobwire-quick", Scripted(HONEST.replace("0.5", "0.25")), ok_means=FSYNCED)
    told = compare(quick, peer("slow", Scripted()), runs=3, jobs=100)
    assert told["lives_per_second"] == {"jobwire-quick": 400, "slow": 200}
    assert told["spread"]["slow"] == {"lowest": 200, "highest": 200, "rounds": [200, 200, 200]}
    assert told["ratios"] == {"jobwire-quick": {"slow": {"median": 2.0, "lowest": 2.0, "highest": 2.0}}}
    assert "| slow | 2.0 (2.0 – 2.0) |" in report.table(told)
    assert told["jobs"] == {"jobwire-quick": 100, "slow": 100}
    assert told["ok_means"] == {"jobwire-quick": FSYNCED, "slow": SOON}
    assert told["versions"] == {"scripted": "1.0"}
    assert told["not_installed"] == {}
    assert told["machine"].keys() == {"cores", "cpu", "kernel", "python", "date"}


@pytest.mark.parametrize(("runs", "is_trial"), [(4, True), (5, False)])
def test_a_table_of_fewer_than_five_rounds_calls_itself_a_trial(runs: int, is_trial: bool) -> None:
    assert ("A trial" in report.table(compare(peer("a", Scripted()), runs=runs))) is is_trial


def test_the_contestants_take_turns_and_each_round_begins_with_another(capsys: pytest.CaptureFixture[str]) -> None:
    compare(peer("a", Scripted()), peer("b", Scripted()), peer("c", Scripted()), runs=3)
    lines = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines() if line.startswith("round")]
    assert lines == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_part_of_the_contestants_is_printed_and_not_published(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RESULTS", "CHART", "PAGE"):
        monkeypatch.setattr(command, name, tmp_path / name)
    begin, end = page.begin(report.COMMAND), page.end(report.COMMAND)
    (tmp_path / "PAGE").write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    few = (peer("jobwire-quick", Scripted()), peer("bullmq", Scripted(), ok_means=WRITTEN))
    monkeypatch.setattr(command, "CONTESTANTS", few)
    ran = CliRunner().invoke(command.main, ["--only", "bullmq", "--runs", "1", "--jobs", "8"])
    assert ran.exit_code == 0, ran.output
    assert "| written, never fsynced | bullmq |" in ran.output
    assert not (tmp_path / "RESULTS").exists()

    ran = CliRunner().invoke(command.main, ["--runs", "1", "--jobs", "8"])
    assert ran.exit_code == 0, ran.output
    told = json.loads((tmp_path / "RESULTS").read_text())
    assert (tmp_path / "PAGE").read_text() == f"before\n{begin}\n{report.table(told)}\n{end}\nafter\n"
    assert (tmp_path / "CHART").read_text() == chart.chart(told)


def test_the_chart_has_a_bar_and_a_whisker_for_each_in_the_group_of_its_meaning() -> None:
    means = {"first": FSYNCED, "second": SOON, "third": WRITTEN}
    told = compare(*(peer(name, Scripted(), ok_means=meaning) for name, meaning in means.items()))
    svg = ElementTree.fromstring(chart.chart(told))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    expected = [[f"OK means: {meaning}", name, "40"] for name, meaning in means.items()]
    assert texts == [text for group in expected for text in group]
    for shape in ("rect", "path"):
        assert len(list(svg.iter(f"{{http://www.w3.org/2000/svg}}{shape}"))) == len(means)


def test_what_is_published_belongs_together(repository: Path) -> None:
    told = json.loads((repository / "benchmarks" / "results" / "peers.json").read_text())
    assert report.table(told) in (repository / "docs" / "performance.md").read_text()
    assert chart.chart(told) == (repository / "docs" / "figures" / "peers.svg").read_text()


def test_every_contestant_pins_what_it_measures_and_says_what_its_ok_means() -> None:
    names = [each.name for each in CONTESTANTS]
    assert len(set(names)) == len(names)
    for each in CONTESTANTS:
        assert each.ok_means in MEANINGS, each.name
        for name, version in each.recipe.versions().items():
            assert version[0].isdigit(), f"{each.name} takes any {name}"
