"""What drives a fault test: its seed, and how often it does what it does."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed() -> int:
    """Of this run; a failing run prints it. Set JOBWIRE_TEST_SEED to run it again."""
    chosen = int(os.environ.get("JOBWIRE_TEST_SEED") or random.randrange(1 << 32))
    print(f"JOBWIRE_TEST_SEED={chosen}")  # noqa: T201  pytest shows it when the test fails
    return chosen
