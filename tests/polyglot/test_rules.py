"""docs/writing-a-client.md and the scenarios belong together."""

from __future__ import annotations

import re
from pathlib import Path

from tests.polyglot.scenario import scenarios


def test_every_scenario_checks_a_rule_and_every_rule_has_one(repository: Path) -> None:
    page = (repository / "docs/writing-a-client.md").read_text(encoding="utf-8")
    rules = re.split(r"^\*\*(\d+)\. ", page, flags=re.MULTILINE)[1:]
    assert [int(number) for number in rules[::2]] == list(range(1, len(rules) // 2 + 1))
    named = [re.findall(r"^- \*(.*)\*$", rule, flags=re.MULTILINE) for rule in rules[1::2]]
    assert all(named)
    assert sorted(sentence for some in named for sentence in some) == sorted(each.sentence for each in scenarios())
