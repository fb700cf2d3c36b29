"""What `import jobwire_client` gives, although it loads nothing of it before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jobwire_client


def test_every_name_that_it_lists_is_there_and_shown() -> None:
    assert set(jobwire_client.__all__) <= set(dir(jobwire_client))
    assert all(getattr(jobwire_client, name) is not None for name in jobwire_client.__all__)


def test_a_name_that_it_does_not_have_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'jobwire_client' has no attribute 'Producer'"):
        _ = jobwire_client.Producer  # type: ignore[attr-defined]  # nor by mypy, which says so here if it becomes so


def test_a_star_import_brings_what_it_lists() -> None:
    program = "from jobwire_client import *; print(Client, Worker, Job, Superseded)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_importing_it_loads_no_grpc() -> None:
    program = (
        "import sys, jobwire_client\n"
        "assert 'grpc' not in sys.modules\n"
        "jobwire_client.Client\n"
        "assert 'grpc' in sys.modules\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
