"""`jobwire create --webhook`, and what becomes of it, over a server that was told of secrets on its command line."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.receiver import Receiver, receiving
from tests.server_process import ServerProcess, serving

SECRET = f"whsec_{base64.b64encode(b'a secret that nobody may ever see').decode()}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(f'mine = "{SECRET}"\n')
    secrets.chmod(0o600)
    options = ("--webhook-allow", "127.0.0.1", "--webhook-secrets", str(secrets), "--log-level", "debug")
    with serving(f"sqlite:///{tmp_path}/jobs.db", tmp_path / "server.log", "127.0.0.1:0", *options) as server:
        yield server


def test_a_job_created_here_is_told_there(tmp_path: Path, server: ServerProcess, receiver: Receiver) -> None:
    jobwire = Shell(tmp_path, server.address)
    asked = ("--webhook", receiver.url, "--webhook-event", "canceled", "--webhook-secret", "mine")
    assert jobwire("create", "--id", "j", *asked).code == 0
    (webhook,) = (each["webhook"] for each in jobwire("get", "j", "--output", "json").lines)
    assert webhook == {"url": receiver.url, "events": ["WEBHOOK_EVENT_CANCELED"], "secretRef": "mine"}
    assert jobwire("cancel", "j").code == 0
    (one,) = receiver.until(1)
    assert (one.job["id"], one.job["state"]) == ("j", "JOB_STATE_CANCELED")
    assert "webhook-signature" in one.headers


def test_no_secret_is_ever_seen(tmp_path: Path, server: ServerProcess, receiver: Receiver) -> None:
    """Not in answers, not in the store, not in the log, not in what is sent."""
    jobwire = Shell(tmp_path, server.address)
    jobwire("create", "--id", "j", "--webhook", receiver.url, "--webhook-secret", "mine")
    unknown = jobwire("create", "--webhook", receiver.url, "--webhook-secret", "yours")
    assert unknown.code == 2
    assert "is no signing secret of this server" in unknown.err
    receiver.answer = lambda _: 500
    jobwire("cancel", "j")
    (one, *_) = receiver.until(1)
    shown = [jobwire("get", "j", "--output", "json").out, jobwire("config", "show").out, json.dumps(one.headers)]
    shown += [jobwire("list", "--queue", "jobwire.webhooks", "--output", "json").out]
    assert server.terminate() == 0
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    files = [path for path in tmp_path.iterdir() if path.is_file() and path.name != "secrets.toml"]
    assert {"jobs.db", "server.log"} <= {path.name for path in files}
    for text in (*(each.encode() for each in shown), *(path.read_bytes() for path in files)):
        assert not any(each in text for each in (SECRET.encode(), key, key.hex().encode()))


def test_options_of_a_webhook_that_is_not_there_are_refused(tmp_path: Path) -> None:
    ran = Shell(tmp_path, "127.0.0.1:1")("create", "--webhook-secret", "mine")
    assert (ran.code, "need --webhook URL" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--webhook-allow", "10.0.0.0/8,private", "--webhook-allow"),
        ("--webhook-allow", "10.0.0.1/8", "--webhook-allow"),
        ("--webhook-secrets", "none.toml", "--webhook-secrets: none.toml"),
    ],
)
def test_a_server_that_cannot_use_a_setting_says_so(tmp_path: Path, option: str, value: str, said: str) -> None:
    ran = Shell(tmp_path, "").process("serve", "--store", "memory://", "--listen", "127.0.0.1:0", option, value)
    assert (ran.code, said in ran.err) == (2, True)
