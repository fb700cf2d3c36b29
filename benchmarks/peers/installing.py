"""How each driver comes to this machine: into a folder of its own under build/peers, anew when its files change."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.peers.engines import Program

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = Path(__file__).resolve().parent
INSTALLED: Final = ROOT / "build" / "peers"

GO: Final = Program("go", "install Go 1.26 or later", version_flag="version")
NODE: Final = Program("node", "apt-get install nodejs")
NPM: Final = Program("npm", "apt-get install npm")


class NotInstalled(Exception):
    """Why a contestant cannot take part, in words that name no path and no host."""


class Recipe(Protocol):
    """A driver, and what it needs."""

    @property
    def programs(self) -> Sequence[Program]: ...

    def steps(self, folder: Path) -> Sequence[Sequence[str]]:
        """The commands that install it there, run in that folder, which holds a copy of the driver's files."""

    def command(self, folder: Path) -> list[str]:
        """Address and number of jobs follow."""

    def versions(self) -> dict[str, str]:
        """Of what is measured, as pinned."""

    @property
    def files(self) -> Sequence[Path]: ...


@dataclass(frozen=True, slots=True)
class Node:
    """A folder with a package.json and a main.mjs."""

    source: str
    programs: Sequence[Program] = (NODE, NPM)

    @property
    def files(self) -> Sequence[Path]:
        return sorted((SOURCES / self.source).iterdir())

    def steps(self, folder: Path) -> Sequence[Sequence[str]]:
        return [["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]]

    def command(self, folder: Path) -> list[str]:
        return ["node", str(folder / "main.mjs")]

    def versions(self) -> dict[str, str]:
        pins: dict[str, str] = json.loads((SOURCES / self.source / "package.json").read_text())["dependencies"]
        return pins


@dataclass(frozen=True, slots=True)
class Go:
    """A folder with a module."""

    source: str
    programs: Sequence[Program] = (GO,)

    @property
    def files(self) -> Sequence[Path]:
        return sorted((SOURCES / self.source).iterdir())

    def steps(self, folder: Path) -> Sequence[Sequence[str]]:
        return [["go", "build", "-mod=readonly", "-o", "driver", "."]]

    def command(self, folder: Path) -> list[str]:
        return [str(folder / "driver")]

    def versions(self) -> dict[str, str]:
        text = (SOURCES / self.source / "go.mod").read_text()
        direct = re.findall(r"^(?:require)?\s+(\S+) v(\S+)$", text, re.MULTILINE)  # the others end with a comment
        return dict(direct)


@dataclass(frozen=True, slots=True)
class Python:
    """A file of the folder `python`, in a virtual environment."""

    module: str
    requirements: Sequence[str]
    programs: Sequence[Program] = ()

    @property
    def files(self) -> Sequence[Path]:
        return [SOURCES / "python" / "driving.py", SOURCES / "python" / f"{self.module}.py"]

    def steps(self, folder: Path) -> Sequence[Sequence[str]]:
        pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        return [[sys.executable, "-m", "venv", "venv"], [*pip, *self.requirements]]

    def command(self, folder: Path) -> list[str]:
        return [str(folder / "venv" / "bin" / "python"), str(folder / f"{self.module}.py")]

    def versions(self) -> dict[str, str]:
        pins = (requirement.split("==") for requirement in self.requirements)
        return {name.split("[")[0]: version for name, version in pins}


@dataclass(frozen=True, slots=True)
class Own:
    """A driver of ours, in the environment that runs this."""

    module: str
    programs: Sequence[Program] = ()
    files: Sequence[Path] = ()

    def steps(self, folder: Path) -> Sequence[Sequence[str]]:
        return []

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.peers.{self.module}"]

    def versions(self) -> dict[str, str]:
        return {}


def install(name: str, recipe: Recipe, tell: Callable[[str], None]) -> list[str]:
    """The command of its driver, which is installed unless it is there. Raises NotInstalled."""
    folder = INSTALLED / name
    steps = recipe.steps(folder)
    if steps and not (ready := folder / f".ready-{_digest(recipe, steps)}").exists():
        tell(f"{name}: installing its driver")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in recipe.files:
            shutil.copy(path, folder)
        for step in steps:
            _run(step, folder)
        ready.touch()
    return recipe.command(folder)


def require(programs: Sequence[Program]) -> None:
    """Raises NotInstalled with all that is missing, at once."""
    absences = [program.absence for program in programs if program.absence]
    if absences:
        raise NotInstalled("; ".join(absences))


def _digest(recipe: Recipe, steps: Sequence[Sequence[str]]) -> str:
    digest = hashlib.sha256(repr(steps).encode())
    for path in recipe.files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _run(step: Sequence[str], folder: Path) -> None:
    with (folder / "install.log").open("ab") as output:
        status = subprocess.run(step, cwd=folder, stdout=output, stderr=output, check=False).returncode
    if status:
        name = " ".join([Path(step[0]).name, *(word for word in step[1:4] if not word.startswith("/"))])
        raise NotInstalled(f"`{name}` failed: see build/peers/{folder.name}/install.log")
