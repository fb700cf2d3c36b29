"""Every scenario, in every language, on both stores; and with programs of three languages at once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.polyglot.languages import LANGUAGES, PATH
from tests.polyglot.scenario import Scenario, scenarios
from tests.polyglot.stage import Cast, Stage

pytestmark = pytest.mark.timeout(600)  # the first test of a language builds its examples

NAMES = list(LANGUAGES)
ALONE = [(name, name, name) for name in NAMES]
MIXED = [(NAMES[i], NAMES[(i + 1) % len(NAMES)], NAMES[(i + 2) % len(NAMES)]) for i in range(len(NAMES))]
"""Each language in each part."""
TOGETHER = [
    pytest.param(MIXED[(number + turn) % len(MIXED)], engine, scenario, id=f"{engine}-{scenario.id}")
    for number, scenario in enumerate(each for each in scenarios() if each.has_worker)
    for turn, engine in ((0, "sqlite"), (2, "valkey"))
]


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.id)
@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
@pytest.mark.parametrize("cast", ALONE, ids=lambda cast: cast[0])
def test_a_language_by_itself(cast: Cast, engine: str, scenario: Scenario, stage: Stage) -> None:
    stage.play(scenario, cast, engine)


@pytest.mark.parametrize(("cast", "engine", "scenario"), TOGETHER)
def test_languages_together(cast: Cast, engine: str, scenario: Scenario, stage: Stage) -> None:
    """Producer, worker and watcher, each in a language of its own."""
    stage.play(scenario, cast, engine)


@pytest.mark.parametrize("cast", ALONE, ids=lambda cast: cast[0])
def test_one_command_leads_to_a_completed_job(cast: Cast, repository: Path) -> None:
    ran = subprocess.run(
        ["examples/run.sh", cast[0], "built"],
        cwd=repository,
        env=os.environ | {"PATH": PATH},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "COMPLETED in attempt 1: hello, world" in ran.stdout
