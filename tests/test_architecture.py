"""What keeps the house in order: layers, names, sizes, reasons, and constructs that have cost others days.

Every rule is a function from one file to what is wrong in it, and stands in RULES beside texts that it must
refuse: a rule that has gone blind fails here as well.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("server/", "client/")
PYTHON_LINES = 450  # "about 400": longer means that two ideas share a room
LUA_LINES = 90  # "about 80"
BACKENDS = ("sqlite", "redis")

Rule = Callable[[str, str], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Sample:
    """A file that a rule must refuse."""

    path: str
    text: str


def project_files() -> list[str]:
    """Paths from the root, with /, of all files that are or would be committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        names = [name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # a copy without git: the folders of our own files
        folders = ("server", "client", "tests", "examples", "protos", "docs")
        found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
        names = [path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts]
    return sorted(name for name in names if (ROOT / name).is_file())


# --- the rules: (path, text) -> what is wrong, with the line where there is one -----------------------------


def vague_name(path: str, _: str) -> Iterator[str]:
    """A module is named after the idea it holds; these names hold anything."""
    vague = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    if vague & {part.removesuffix(".py").strip("_") for part in path.split("/")}:
        yield "named after no idea"


def too_long(path: str, text: str) -> Iterator[str]:
    """A file too long to be read in one sitting holds two ideas."""
    limit = LUA_LINES if path.endswith(".lua") else PYTHON_LINES
    if (lines := text.count("\n")) > limit:
        yield f"{lines} lines, {limit} at most"


def undescribed_package(path: str, text: str) -> Iterator[str]:
    """The first thing a folder says is what it is."""
    if path.endswith("/__init__.py") and not ast.get_docstring(ast.parse(text)):
        yield "a package without a docstring"


def unexplained_exception(path: str, text: str) -> Iterator[str]:
    """Whoever silences a checker says why, in at least two words after it."""
    silencer = re.compile(
        r"#\s*(?:noqa(?::\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?"
        r"|ruff:\s*noqa(?::\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?"
        r"|type:\s*ignore(?:\[[^\]]*\])?"
        r"|(?:mypy|pyright|pylint|nosec)\b:?\s*[\w=-]*(?:\[[^\]]*\])?"
        r"|pragma:\s*no\s+\w+"
        r"|fmt:\s*(?:off|skip))"
    )
    for comment in tokenize.generate_tokens(io.StringIO(text).readline):
        if comment.type != tokenize.COMMENT or not silencer.search(comment.string):
            continue
        reason = silencer.sub("", comment.string)
        if len(re.findall(r"\w+", reason)) < 2:
            yield f"line {comment.start[0]}: {comment.string!r} gives no reason"


def dangerous_call(path: str, text: str) -> Iterator[str]:
    """These calls fail where no test looks: lost cancellations, local times, a stopped loop."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in {"asyncio", "time"}:
            for name in node.names:
                if name.name in {"wait_for", "sleep"} and (node.module, name.name) != ("asyncio", "sleep"):
                    yield f"line {node.lineno}: import {node.module} whole, so that {name.name} shows"
        if not isinstance(node, ast.Attribute | ast.Call):
            continue
        called = ast.unparse(node if isinstance(node, ast.Attribute) else node.func)
        if called == "asyncio.wait_for" and isinstance(node, ast.Attribute):
            yield f"line {node.lineno}: asyncio.wait_for swallows cancellation on 3.11; use asyncio.timeout"
        if not isinstance(node, ast.Call):
            continue
        if called.endswith("datetime.now") and not node.args and not node.keywords:
            yield f"line {node.lineno}: datetime.now() has no zone"
        if called.endswith(("datetime.utcnow", "datetime.utcfromtimestamp")):
            yield f"line {node.lineno}: {called}() has no zone"
        if called == "time.sleep" and server(path) and not re.search(r"#.*\bthread\b.*\w", lines[node.lineno - 1]):
            yield f"line {node.lineno}: time.sleep stops the loop; in a thread, add `# thread: why it may`"


def swallowed_exception(path: str, text: str) -> Iterator[str]:
    """`except Exception: pass`, in any spelling, hides the bug that is still to be written."""
    broad = {"", "Exception", "BaseException"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if all(_does_nothing(step) for step in node.body) and broad & {
                ast.unparse(kind) if kind else "" for kind in kinds
            }:
                yield f"line {node.lineno}: every exception is swallowed"
        elif isinstance(node, ast.Call) and re.fullmatch(r"(contextlib\.)?suppress", ast.unparse(node.func)):
            yield from (f"line {node.lineno}: all is suppressed" for kind in node.args if ast.unparse(kind) in broad)


def _does_nothing(step: ast.stmt) -> bool:
    return isinstance(step, ast.Pass | ast.Continue) or (
        isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant)
    )


def concrete_store(path: str, text: str) -> Iterator[str]:
    """Only app.py and choice.py name a concrete store; by string and importlib too, which import-linter cannot see."""
    if path in ("server/jobwire_server/app.py", "server/jobwire_server/choice.py"):
        return
    inside = re.match(r"server/jobwire_server/store/(\w+)/", path)
    own = inside[1] if inside else ""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            named = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            named = {node.value} if re.fullmatch(r"[\w.]+", node.value) else set()
        else:
            continue
        for backend in BACKENDS:
            if backend != own and any(re.search(rf"\bstore\.{backend}\b", name) for name in named):
                yield f"line {getattr(node, 'lineno', '?')}: names the {backend} store; app.py hands one in"


def machine_path(path: str, text: str) -> Iterator[str]:
    """A path of the author's machine works nowhere else."""
    homes = re.compile(r"(?<![\w.~}$-])/(?:root|work|home/\w+|Users/\w+)(?=/|\b(?![\w-]))")
    for number, line in enumerate(text.splitlines(), start=1):
        if found := homes.search(line):
            yield f"line {number}: {found[0]} is a path of one machine"


# --- which files each rule reads, and files that it must refuse ---------------------------------------------


def ours(path: str) -> bool:
    return path.startswith(SOURCES) and path.endswith(".py")


def any_python(path: str) -> bool:
    return path.endswith(".py") and not path.startswith("generated/")


def measured(path: str) -> bool:
    return path.startswith(SOURCES) and path.endswith((".py", ".lua"))


def server(path: str) -> bool:
    return path.startswith("server/") and path.endswith(".py")


def any_text(path: str) -> bool:  # this file must spell what it forbids
    return not path.startswith("generated/") and path != "tests/test_architecture.py"


RULES: list[tuple[Rule, Callable[[str], bool], list[Sample]]] = [
    (
        vague_name,
        any_python,
        [
            Sample("server/jobwire_server/utils.py", ""),
            Sample("tests/common/x.py", ""),
            Sample("a/_helpers.py", ""),
        ],
    ),
    (
        too_long,
        measured,
        [Sample("client/x.py", "x\n" * (PYTHON_LINES + 1)), Sample("server/x.lua", "x\n" * (LUA_LINES + 1))],
    ),
    (undescribed_package, any_python, [Sample("server/x/__init__.py", "import x\n")]),
    (
        unexplained_exception,
        any_python,
        [
            Sample("x.py", "import x  # noqa\n"),
            Sample("x.py", "import x  # noqa: F401, E402\n"),
            Sample("x.py", "x = 1  # type: ignore[arg-type]\n"),
            Sample("x.py", "# ruff: noqa: F401\n"),
            Sample("x.py", "# pylint: disable=all\n"),
            Sample("x.py", "x = 1  # type: ignore[arg-type]  # sorry\n"),
        ],
    ),
    (
        dangerous_call,
        ours,
        [
            Sample("client/x.py", "async def f(): await asyncio.wait_for(g(), 1)\n"),
            Sample("server/x.py", "async def f(): await asyncio.wait_for(g(), 1)\n"),
            Sample("server/x.py", "from asyncio import wait_for\n"),
            Sample("server/x.py", "now = datetime.now()\n"),
            Sample("server/x.py", "now = datetime.datetime.utcnow()\n"),
            Sample("server/x.py", "time.sleep(1)\n"),
            Sample("server/x.py", "time.sleep(1)  # a moment\n"),
            Sample("server/x.py", "from time import sleep\n"),
        ],
    ),
    (
        swallowed_exception,
        ours,
        [
            Sample("server/x.py", "try: f()\nexcept Exception: pass\n"),
            Sample("server/x.py", "try: f()\nexcept: ...\n"),
            Sample("server/x.py", "try: f()\nexcept (ValueError, BaseException):\n    'why not'\n"),
            Sample("client/x.py", "with contextlib.suppress(Exception): f()\n"),
        ],
    ),
    (
        concrete_store,
        server,
        [
            Sample("server/jobwire_server/rpc/x.py", "from jobwire_server.store.sqlite import store\n"),
            Sample("server/jobwire_server/rpc/x.py", "from jobwire_server.store import sqlite\n"),
            Sample("server/jobwire_server/rpc/x.py", "def f():\n    import jobwire_server.store.redis.store\n"),
            Sample("server/jobwire_server/service/x.py", "import_module('jobwire_server.store.sqlite')\n"),
            Sample("server/jobwire_server/store/redis/x.py", "from jobwire_server.store.sqlite import store\n"),
        ],
    ),
    (
        machine_path,
        any_text,
        [
            Sample("x.md", "see /root/x\n"),
            Sample("x.py", "p = '/work'\n"),
            Sample("x", "cd /home/ann/src\n"),
            Sample("x.toml", 'path = "/Users/ann/bin"\n'),
        ],
    ),
]


@pytest.mark.parametrize(("rule", "reads", "_samples"), RULES, ids=[rule.__name__ for rule, _, _ in RULES])
def test_every_file_keeps_the_rule(rule: Rule, reads: Callable[[str], bool], _samples: list[Sample]) -> None:
    wrong = []
    for path in filter(reads, project_files()):
        content = (ROOT / path).read_bytes()
        if b"\0" not in content:
            wrong += [f"{path}: {finding}" for finding in rule(path, content.decode())]
    assert not wrong, f"{rule.__doc__}\n" + "\n".join(wrong)


SAMPLES = [(rule, sample) for rule, _, samples in RULES for sample in samples]


@pytest.mark.parametrize(("rule", "sample"), SAMPLES, ids=[rule.__name__ for rule, _ in SAMPLES])
def test_the_rule_refuses_what_it_forbids(rule: Rule, sample: Sample) -> None:
    assert list(rule(sample.path, sample.text))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (unexplained_exception, "import x  # noqa: F401  # imported for its effect\n"),
        (unexplained_exception, "x = 1  # type: ignore[misc]  # the stub forgets aio\n"),
        (unexplained_exception, "x = '# noqa'\n"),
        (dangerous_call, "time.sleep(1)  # thread: the heartbeat's own, woken by nothing\n"),
        (dangerous_call, "now = datetime.now(UTC)\n"),
        (swallowed_exception, "try: f()\nexcept Exception:\n    log.exception('f')\n    raise\n"),
        (concrete_store, "from jobwire_server.store import base\n"),
        (machine_path, "https://example.org/work and $HOME/work/x and /workers and WORKDIR /src\n"),
    ],
)
def test_the_rule_accepts_what_it_does_not_mean(rule: Rule, text: str) -> None:
    assert not list(rule("server/jobwire_server/rpc/x.py", text))


def test_every_folder_with_python_in_it_is_a_package() -> None:
    """Without an __init__.py a folder is no package to import-linter: its imports would go unseen."""
    paths = [path for path in project_files() if ours(path)]
    folders = {path.rpartition("/")[0] for path in paths}
    assert not {folder for folder in folders if f"{folder}/__init__.py" not in paths}


def test_imports_follow_the_layers() -> None:
    """The contracts stand in pyproject.toml, under [tool.importlinter]."""
    lint = "from importlinter.cli import lint_imports_command as lint; lint()"
    roots = ("server", "client/python", "generated/python")
    linted = subprocess.run(
        [sys.executable, "-c", lint, "--no-logo", "--no-cache"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in roots)},  # this copy, no other
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
