"""The packages of the image are those that pyproject.toml asks for, each with its hashes; `make lock` renews them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FLOORS: Final = {"protobuf": "6.33.5", "redis": "4.5.5", "grpcio": "1.65.4"}
"""Below them are versions with known vulnerabilities."""

LOCKS: Final = ["requirements.txt", "build.txt"]


@pytest.fixture
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def read(repository: Path, lock: str) -> str:
    return (repository / "deploy" / "image" / lock).read_text()


def versions(repository: Path, lock: str) -> dict[str, Version]:
    found = re.findall(r"^([a-z0-9-]+)==(\S+)", read(repository, lock), re.MULTILINE)
    return {name: Version(version) for name, version in found}


def unmet(wanted: list[str], locked: dict[str, Version]) -> list[str]:
    """The requirements that the lock does not satisfy."""
    parsed = [Requirement(each) for each in wanted]
    return [
        str(each) for each in parsed if not each.specifier.contains(locked.get(canonicalize_name(each.name), "0.dev0"))
    ]


def test_the_lock_of_the_image_has_what_the_package_asks_for(repository: Path, project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["server"], *extras["cli"]]
    assert unmet(wanted, versions(repository, "requirements.txt")) == []


def test_the_lock_of_the_build_has_what_builds_the_package(repository: Path, project: dict[str, Any]) -> None:
    assert unmet(project["build-system"]["requires"], versions(repository, "build.txt")) == []


def test_nothing_locked_has_a_known_vulnerability(repository: Path) -> None:
    locked = versions(repository, "requirements.txt")
    assert {name: locked[name] for name, floor in FLOORS.items() if locked[name] < Version(floor)} == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_is_known_by_its_hashes_and_no_place_is_named(repository: Path, lock: str) -> None:
    package = r"[a-z0-9-]+==[0-9][^\s;]*( ; [^\\]+)?"
    digest = r"    --hash=sha256:[0-9a-f]{64}"
    lines = rf"(#.*\n)*({package} \\\n({digest} \\\n)*{digest}\n)+"
    assert re.fullmatch(lines, read(repository, lock)), "see `make lock`"


def test_the_image_installs_the_locks_and_nothing_that_is_built(repository: Path) -> None:
    dockerfile = (repository / "Dockerfile").read_text()
    for lock in LOCKS:
        assert f"--only-binary=:all: --require-hashes -r {lock}" in dockerfile
    others = [line for line in dockerfile.splitlines() if re.search(r"pip (install|wheel)", line) and "-r " not in line]
    assert all("--no-deps" in line for line in others)
