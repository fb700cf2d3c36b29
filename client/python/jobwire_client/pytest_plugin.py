"""Fixtures for pytest: `pytest_plugins = ["jobwire_client.pytest_plugin"]` in the conftest.py at the root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobwire_client.testing import Server, serving


@pytest.fixture(scope="session")
def jobwire_server() -> Iterator[Server]:
    """One server in memory for the whole run: give each test a queue of its own."""
    with serving() as server:
        yield server
