"""What every test may ask for. Fixtures of one folder stand in that folder's own conftest.py."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working copy, whatever folder pytest was started in."""
    return Path(__file__).resolve().parent.parent
