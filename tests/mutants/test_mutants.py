"""Bugs planted one at a time into a copy of the tree: for each, the test that it names must fail there.

A file `*.patch` beside this one is a mutant. It opens with `Bug:`, a sentence, and one `Test:` line or more, each the
address of a test that catches it; the patch follows, as `git diff` writes it. When code moves on and a patch applies no
longer, plant the same bug again: edit the code, `git diff`, put the code back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COPIED = ("server", "client", "generated", "deploy", "tests", "docs", "examples", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Mutant:
    path: Path
    bug: str
    tests: list[str]


def read(path: Path) -> Mutant:
    head = path.read_text().split("diff --git", 1)[0].splitlines()
    bug = " ".join(line.removeprefix("Bug:").strip() for line in head if line.startswith("Bug:"))
    tests = [line.removeprefix("Test:").strip() for line in head if line.startswith("Test:")]
    assert bug, f"{path.name} does not say what it breaks"
    assert tests, f"{path.name} names no test"
    return Mutant(path, bug, tests)


MUTANTS = [read(path) for path in sorted(HERE.glob("*.patch"))]


def run(tree: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Run pytest in a copy of the tree: its packages come before the installed ones.

    It loads the plugins that it is told of and no other: hypothesis's alone takes longer than most tests.
    """
    roots = os.pathsep.join(str(tree / root) for root in ("server", "client/python", "generated/python"))
    plugins = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--timeout", "60", *tests],
        cwd=tree,
        env={
            **os.environ,
            "PYTHONPATH": roots,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("mutants") / "tree"
    tree.mkdir()
    for name in COPIED:
        source = repository / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
        else:
            shutil.copy(source, tree / name)
    return tree


def apply(tree: Path, mutant: Mutant, *, back: bool = False) -> None:
    command = ["git", "apply", *(["--reverse"] if back else []), str(mutant.path)]
    # Were the temporary folder inside some repository, git would take the paths as that one's and apply nothing.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    applied = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, f"{mutant.path.name} does not apply any more, plant it again:\n{applied.stderr}"


def test_the_tests_that_mutants_name_pass_without_them(copy: Path) -> None:
    ran = run(copy, sorted({test for mutant in MUTANTS for test in mutant.tests}))
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.path.stem)
def test_the_suite_catches(mutant: Mutant, copy: Path) -> None:
    apply(copy, mutant)
    try:
        ran = run(copy, mutant.tests)
    finally:
        apply(copy, mutant, back=True)
    # 1 = tests ran and some failed; anything else is a mutant that broke pytest, not a test that caught it.
    assert ran.returncode == 1, f"survived: {mutant.bug}\n{ran.stdout}"
    for test in mutant.tests:
        assert f"FAILED {test}" in ran.stdout, f"{test} did not catch: {mutant.bug}\n{ran.stdout}"
