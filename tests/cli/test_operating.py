"""What an operator asks and does: `stats`, `top`, `queue`, `purge`, `dead`, against a real server."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.cli.conftest import PATIENCE, Shell
from tests.cli.test_follow import working

from jobwire.v1.admin_service_pb2 import Activity, Stats
from jobwire_client import Client, new_job
from jobwire_client.cli import stats


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[-64:].lstrip("-")


def fill(address: str, queue: str, number: int, **fields: Any) -> None:
    with Client(address, timeout=PATIENCE) as client:
        client.create_many(new_job("x", queue=queue, **fields) for _ in range(number))


def bury(jobwire: Shell, address: str, queue: str, number: int = 1) -> list[str]:
    """Dead letters."""
    ids = [jobwire("create", "no", "--type", "echo", "--queue", queue).out.strip() for _ in range(number)]
    with working(address, queue):
        assert jobwire("wait", *ids).code == 1
    return ids


def count(jobwire: Shell, queue: str) -> dict[str, int]:
    counts: dict[str, int] = jobwire("count", "--queue", queue, "--output", "json").json["counts"]
    return counts


# --- stats and top ------------------------------------------------------------------------------------------


def test_stats_are_a_table_for_people(jobwire: Shell, address: str, queue: str) -> None:
    fill(address, queue, 3)
    shown = jobwire("stats", queue, "--window", "15m")
    heads, row, workers = shown.out.splitlines()
    assert heads.split()[:2] == ["QUEUE", "WAITING"]
    name, waiting, oldest, running, later, dead, *rates, run_time, serving = row.split()
    assert (name, waiting, running, later, dead, run_time, serving) == (queue, "3", "0", "0", "0", "-", "0")
    assert re.fullmatch(r"\d+s", oldest)
    assert float(rates[0].replace(",", "")) > 0
    assert rates[1:] == ["0", "0"]
    assert workers.startswith("workers: ")


def test_stats_of_several_queues_end_with_all_of_them(jobwire: Shell, address: str, queue: str) -> None:
    fill(address, f"{queue}-b", 1, schedule_time=None)
    bury(jobwire, address, f"{queue}-a")
    jobwire("pause", f"{queue}-b")
    rows = jobwire("stats", f"{queue}-a", f"{queue}-b").out.splitlines()[1:-1]
    assert [re.split(r"  +", row)[0] for row in rows] == [f"{queue}-a", f"(paused) {queue}-b", "all"]
    assert rows[0].split()[5] == rows[2].split()[5] == "1", "dead"


def test_stats_for_programs_are_one_document(jobwire: Shell, address: str, queue: str) -> None:
    fill(address, queue, 2)
    told = jobwire("stats", queue, "--output", "json").json
    assert told["queues"][0]["counts"] == [{"state": "JOB_STATE_QUEUED", "count": "2"}]
    assert told["totals"]["activity"][0]["createdCount"] == "2"


def test_the_last_hour_is_a_line_for_each_minute(jobwire: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobwire("stats", "--minutes").code == 0
    minutes = [
        Activity(created_count=1200, completed_count=7, average_run_time=Duration(nanos=1_500_000)),
        Activity(failed_count=1, retried_count=2, interrupted_count=3),
    ]
    stats._show_minutes(Stats(server_time=Timestamp(seconds=1_700_000_042), minutes=minutes))
    _, heads, first, second = capsys.readouterr().out.splitlines()
    assert heads.split() == ["MINUTE", "IN", "DONE", "FAIL", "RUN"]
    assert first.split()[1:] == ["1,200", "7", "0", "1.5ms"]
    assert second.split()[1:] == ["0", "0", "6", "-"]
    assert first.split()[0] < second.split()[0] or second.startswith("00:00"), "oldest first"
    stats._show_minutes(Stats())
    assert capsys.readouterr().out == "\nno minute is over yet\n"


def test_stats_of_no_queue_say_so(jobwire: Shell) -> None:
    shown = jobwire("stats", "never-was")
    assert (shown.code, shown.out) == (0, jobwire("stats", "never-was").out)
    assert "no such queues" in shown.err


def of_terminal(jobwire: Shell) -> dict[str, str]:
    """The environment where somebody sits. A terminal has a size of its own; pytest-xdist says otherwise by these."""
    ours = {name: value for name, value in jobwire.environment.items() if name not in ("LINES", "COLUMNS")}
    return ours | {"TERM": "xterm"}


@contextmanager
def topped(jobwire: Shell, *arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """`jobwire top` as a process; Ctrl-C ends it, and it leaves no traceback."""
    process = subprocess.Popen(
        jobwire.words("top", *arguments, "--interval", "100ms"),
        cwd=jobwire.folder,
        env=of_terminal(jobwire),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        timer.cancel()
        assert process.returncode == 130, errors
        assert "Traceback" not in errors


def test_top_without_a_terminal_prints_a_line_for_each_reading(jobwire: Shell, address: str, queue: str) -> None:
    fill(address, queue, 3)
    with topped(jobwire, queue) as process:
        assert process.stdout is not None
        for _ in range(3):
            line = process.stdout.readline()
            assert re.match(r"\d\d:\d\d:\d\d  waiting 3  oldest ", line), line
            assert "  workers: " in line


def test_top_for_programs_prints_a_document_for_each_reading(jobwire: Shell, address: str, queue: str) -> None:
    fill(address, queue, 3)
    with topped(jobwire, queue, "--output", "json") as process:
        assert process.stdout is not None
        times = [json.loads(process.stdout.readline())["serverTime"] for _ in range(3)]
    assert times == sorted({*times})


def read_until(terminal: int, is_so: Callable[[str], bool]) -> str:
    seen = ""
    while not is_so(seen):
        seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def test_top_fills_a_terminal_and_gives_it_back(jobwire: Shell, address: str) -> None:
    names = [f"top{n}" for n in range(9)]
    for number, name in enumerate(names, 1):
        fill(address, name, number)
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 120, 0, 0))
    with topped(jobwire, *names, stdout=side) as process:
        os.close(side)
        seen = read_until(terminal, lambda text: text.count("WAITING") >= 2)
        assert process.poll() is None
    rest = read_until(terminal, lambda text: "\x1b[?1049l" in text)
    os.close(terminal)
    assert "\x1b[?1049h" in seen, "on a screen of its own"
    assert "\x1b[?1049l" in rest, "which goes at the end"
    assert names[8] in seen, "the busiest first"
    assert names[0] not in seen, "as many as there is room for"
    assert "queues more" in seen


def test_top_of_a_server_that_is_not_there_says_so(jobwire: Shell) -> None:
    shown = jobwire("top", "--address", "127.0.0.1:1", "--timeout", "0.5")
    assert (shown.code, shown.out) == (3, "")


# --- queue --------------------------------------------------------------------------------------------------


def test_settings_of_a_queue_are_set_shown_and_put_back(jobwire: Shell, address: str, queue: str) -> None:
    fill(address, queue, 1)
    shown = jobwire("queue", "set", queue, "--max-in-flight", "20", "--retention", "3d", "--ageing", "30s")
    assert shown.code == 0, shown.err
    for line in ("max in flight  20", "retention      3d", "ageing         30s for each", "jobs           1 queued"):
        assert line in shown.out
    assert jobwire("queue", "show", queue).out.splitlines()[:5] == shown.out.splitlines()[:5]
    back = jobwire("queue", "set", queue, "--max-in-flight", "none", "--retention", "default", "--output", "json").json
    assert "maxInFlight" not in back
    assert "retention" not in back
    assert back["ageing"] == "30s", "what is not named stays"


def test_a_queue_is_made_only_where_that_is_asked_for(jobwire: Shell, queue: str) -> None:
    assert jobwire("queue", "set", queue, "--max-in-flight", "1").code == 4
    assert jobwire("queue", "set", queue, "--max-in-flight", "1", "--create").code == 0
    assert "max in flight  1" in jobwire("queue", "show", queue).out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to change"),
        (["--create"], "nothing to change"),
        (["--max-in-flight", "0"], "pause it"),
        (["--retention", "long"], "is no duration"),
        (["--ageing", "2d"], "ageing"),
    ],
)
def test_settings_that_cannot_be_are_refused(jobwire: Shell, queue: str, arguments: list[str], says: str) -> None:
    refused = jobwire("queue", "set", queue, *arguments)
    assert refused.code == 2
    assert says in refused.err


# --- purge and dead letters ---------------------------------------------------------------------------------


def test_a_purge_deletes_what_waits_and_nothing_else(jobwire: Shell, address: str, queue: str) -> None:
    bury(jobwire, address, queue)
    fill(address, queue, 5)
    assert jobwire("purge", queue, "--dry-run").out == "would purge 5 jobs\n"
    refused = jobwire("purge", queue)
    assert (refused.code, "5 jobs: say --yes" in refused.err) == (2, True)
    assert count(jobwire, queue) == {"QUEUED": 5, "FAILED": 1}
    assert jobwire("purge", queue, "--limit", "2", "--yes").out == "2 jobs deleted\n"
    purged = jobwire("purge", queue, "--yes", "--output", "json").json
    assert purged == {"verb": "purge", "count": 3, "dryRun": False}
    assert count(jobwire, queue) == {"FAILED": 1}
    assert jobwire("purge", queue, "--state", "failed", "--yes").out == "1 job deleted\n"
    assert jobwire("purge", queue, "--yes").out == "0 jobs deleted\n"


def test_a_purge_of_no_queue_or_of_running_jobs_is_refused(jobwire: Shell, queue: str) -> None:
    assert jobwire("purge", "never-was", "--dry-run").code == 4
    assert jobwire("purge", queue, "--state", "in_progress").code == 2


def test_dead_letters_are_listed_with_what_went_wrong_and_run_again(jobwire: Shell, address: str, queue: str) -> None:
    ids = bury(jobwire, address, queue, 2)
    fill(address, queue, 1)
    listed = jobwire("dead", "list", "--queue", queue).out
    for job_id in ids:
        assert re.search(rf"^{job_id} +{queue} +echo +1 +\d+s +PermanentError: it said no$", listed, re.MULTILINE), (
            listed
        )
    told = jobwire("dead", "list", "--queue", queue, "--output", "json").lines
    assert sorted(job["id"] for job in told) == sorted(ids)
    assert jobwire("dead", "retry", "--queue", queue, "--dry-run").out == "would retry 2 jobs\n"
    assert jobwire("dead", "retry", "--queue", queue).code == 2, "nobody can be asked"
    assert jobwire("dead", "retry", "--queue", queue, "--yes").out == "2 jobs queued again\n"
    assert count(jobwire, queue) == {"QUEUED": 3}
    nothing = jobwire("dead", "list", "--queue", queue)
    assert (nothing.out, nothing.err) == ("", "no dead letters\n")


def test_all_dead_letters_must_be_meant(jobwire: Shell, queue: str) -> None:
    for arguments in ([], ["--all", "--queue", queue]):
        refused = jobwire("dead", "retry", "--yes", *arguments)
        assert (refused.code, "--all" in refused.err) == (2, True)
    assert jobwire("dead", "retry", "--all", "--dry-run").code == 0


def on_terminal(jobwire: Shell, *arguments: str, answer: str) -> tuple[int, str]:
    """The command where somebody sits; the exit code, and all that was to be seen."""
    master, side = pty.openpty()
    process = subprocess.Popen(
        jobwire.words(*arguments),
        cwd=jobwire.folder,
        env=of_terminal(jobwire),
        stdin=side,
        stdout=side,
        stderr=side,
        close_fds=True,
    )
    os.close(side)
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    os.write(master, answer.encode())
    seen = ""
    try:
        while data := os.read(master, 65536):
            seen += data.decode(errors="replace")
    except OSError:
        pass  # the other side is closed
    os.close(master)
    timer.cancel()
    return process.wait(), seen


def test_where_somebody_sits_they_are_asked_and_see_how_far_it_is(jobwire: Shell, address: str, queue: str) -> None:
    fill(address, queue, 2500)
    code, seen = on_terminal(jobwire, "purge", queue, answer="n\n")
    assert (code, "purge 2,500 jobs? [y/N]" in seen) == (1, True)
    assert count(jobwire, queue) == {"QUEUED": 2500}
    code, seen = on_terminal(jobwire, "purge", queue, answer="y\n")
    assert code == 0, seen
    assert "1000/2500" in seen
    assert "2500/2500" in seen
    assert "2,500 jobs deleted" in seen
