"""Who is missing is said by name; what is broken is no excuse."""

from __future__ import annotations

import pytest
from tests.polyglot import languages


@pytest.mark.parametrize(
    ("name", "program"), [("go", "go"), ("java", "java"), ("shell", "bash"), ("typescript", "node")]
)
def test_a_toolchain_that_is_missing_is_named(name: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "PATH", "")
    assert languages.absence.__wrapped__(name) == f"{name}: this machine has no {program}"


@pytest.mark.parametrize(
    "said",
    [
        'driver/main.go:19:2: x@v1: Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused',
        "go: x@v1: module lookup disabled by GOPROXY=off",
        "npm error code ECONNREFUSED",
        "npm error code ENOTFOUND",
        "[ERROR] Could not transfer artifact x:pom:1 from/to m (http://127.0.0.1:1/): transfer failed",
        "[ERROR] Cannot access central in offline mode",
        "go: go.mod requires go >= 1.24.0 (running go 1.19.8)",
        "[ERROR] Fatal error compiling: error: release version 17 not supported",
    ],
)
def test_a_machine_that_cannot_build_is_excused(said: str) -> None:
    assert languages.excuse(said)


@pytest.mark.parametrize(
    "said",
    [
        "jobworker/worker.go:93:2: undefined: identity",
        "src/driver.ts(49,61): error TS2353: Object literal may only specify known properties",
        "[ERROR] COMPILATION ERROR : cannot find symbol",
    ],
)
def test_a_build_that_is_broken_is_not(said: str) -> None:
    assert not languages.excuse(said)
