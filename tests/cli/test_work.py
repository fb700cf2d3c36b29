"""`jobwire work --exec`: a command of the user's as a worker."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.conftest import PATIENCE, Shell
from tests.server_process import ServerProcess

PROGRAM = """
import json, os, pathlib, signal, sys, time
said = sys.stdin.read()
match said:
    case "fail":
        sys.exit("no luck")
    case "back" if os.environ["JOBWIRE_JOB_ATTEMPT"] == "1":
        sys.exit(75)
    case "hold":
        pathlib.Path("started").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)  # a file is all that the test and this program share
    case "forever":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # before it says so: the signal may come at once
        pathlib.Path("started").touch()
        while True:
            signal.pause()
told = {name: os.environ["JOBWIRE_JOB_" + name] for name in ("ID", "ATTEMPT", "FENCE", "TYPE", "QUEUE")}
print(json.dumps(told | {"said": said}))
"""


@contextmanager
def working(jobwire: Shell, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    (jobwire.folder / "program.py").write_text(PROGRAM)
    words = jobwire.words("work", "--exec", f"{sys.executable} program.py", *arguments)
    with subprocess.Popen(
        words, cwd=jobwire.folder, env=jobwire.environment, stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def started(jobwire: Shell, job_id: str) -> None:
    """Returns when the program of that job runs."""
    while not (jobwire.folder / "started").exists():
        assert jobwire("get", job_id).code == 0


def test_the_payload_goes_in_and_the_result_comes_out(jobwire: Shell) -> None:
    with working(jobwire, "--queue", "w1"):
        ran = jobwire("create", "hello", "--queue", "w1", "--type", "greet", "--id", "job1", "--wait")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert int(told.pop("FENCE")) > 0
    assert told == {"ID": "job1", "ATTEMPT": "1", "TYPE": "greet", "QUEUE": "w1", "said": "hello"}


def test_another_exit_code_fails_the_job_with_the_end_of_stderr(jobwire: Shell) -> None:
    with working(jobwire, "--queue", "w2"):
        ran = jobwire("create", "fail", "--queue", "w2", "--max-retries", "0", "--wait", "--output", "json")
    assert ran.code == 1
    assert ran.json["error"]["code"] == "CommandFailed"
    assert ran.json["error"]["message"] == "exit code 1: no luck"  # on one line: lists show the first


def test_exit_code_75_gives_the_job_back_and_spends_no_retry(jobwire: Shell) -> None:
    with working(jobwire, "--queue", "w3", "--release-delay", "10ms"):
        ran = jobwire("create", "back", "--queue", "w3", "--wait", "--output", "json")
    assert ran.code == 0
    assert ran.json["attempt"] == 2
    assert "retryCount" not in ran.json
    assert ran.json["attempts"][0]["outcome"] == "ATTEMPT_OUTCOME_RELEASED"


def test_a_cancel_kills_a_command_that_does_not_stop(jobwire: Shell) -> None:
    with working(jobwire, "--queue", "w4", "--kill-after", "50ms"):
        waiting = subprocess.Popen(
            jobwire.words("create", "forever", "--queue", "w4", "--id", "job4", "--wait"),
            cwd=jobwire.folder,
            env=jobwire.environment,
            stderr=subprocess.DEVNULL,
        )
        while jobwire("get", "job4").code != 0:
            pass
        started(jobwire, "job4")
        assert jobwire("why", "job4", "--output", "json").json["reasons"] == ["IN_PROGRESS"]
        assert "asked to stop" in jobwire("cancel", "job4").out
        assert waiting.wait(PATIENCE) == 6


def test_ctrl_c_lets_the_command_finish_and_claims_nothing_more(jobwire: Shell) -> None:
    with working(jobwire, "--queue", "w5") as worker:
        held = jobwire("create", "hold", "--queue", "w5").out.strip()
        started(jobwire, held)
        worker.send_signal(signal.SIGINT)
        assert worker.stderr is not None
        while "draining: 1 job has" not in (line := worker.stderr.readline()):
            assert line, "it ended without a drain"
        late = jobwire("create", "late", "--queue", "w5").out.strip()
        (jobwire.folder / "go").touch()
        worker.stderr.read()
        assert worker.wait(PATIENCE) == 0
    assert jobwire("get", held, "--output", "json").json["state"] == "JOB_STATE_COMPLETED"
    assert jobwire("get", late, "--output", "json").json["state"] == "JOB_STATE_QUEUED"


def test_without_a_server_it_ends_and_says_what_to_do(jobwire: Shell) -> None:
    ran = jobwire.process("work", "--exec", "cat", "--address", nowhere())
    assert ran.code == 3
    assert "cannot reach" in ran.err
    assert "--wait-for-server" in ran.err


def test_it_waits_for_a_server_when_told_to(jobwire: Shell, tmp_path: Path) -> None:
    server = ServerProcess("memory://", tmp_path / "server.log", nowhere())
    with working(jobwire, "--wait-for-server", "--address", server.address) as worker:
        assert worker.stderr is not None
        while "keeps trying" not in (line := worker.stderr.readline()):
            assert line, "it gave up"
        try:
            server.start()
            ran = jobwire("create", "hello", "--wait", "--address", server.address)
        finally:
            server.end()
    assert ran.code == 0, ran.err


def nowhere() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
