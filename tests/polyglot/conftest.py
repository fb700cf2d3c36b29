"""A stage for the scenarios, and who is missing on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.polyglot.languages import absence
from tests.polyglot.stage import Stage
from tests.valkey_process import Keyspace, running, valkey_binary


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips whole languages, here, so that pytest's summary has one line for each with its name."""
    call = getattr(item, "callspec", None)
    for language in () if call is None else call.params.get("cast", ()):
        if reason := absence(language):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("polyglot")
    with ExitStack() as engines:

        def store_url(engine: str) -> str:
            if engine == "sqlite":
                return f"sqlite:///{folder}/jobs.db"
            binary = valkey_binary()
            assert binary, "a test without an engine is skipped"
            (data := folder / "valkey").mkdir()
            return Keyspace(engines.enter_context(running(binary, data)), "polyglot").url

        played = Stage(folder, store_url)
        try:
            yield played
        finally:
            played.close()
