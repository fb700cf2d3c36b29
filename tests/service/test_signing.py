"""The file of signing secrets, and what is never said of it."""

from __future__ import annotations

import base64
import logging
import os
import re
from pathlib import Path

import pytest

from jobwire_server.service.kept_file import BadFile
from jobwire_server.service.signing import Secrets, signed

KEY = bytes(range(24))
SPELLED = f"whsec_{base64.b64encode(KEY).decode()}"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_signature_is_that_of_the_standard() -> None:
    """Its own example: https://github.com/standard-webhooks/standard-webhooks, libraries/python."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = dict(signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [key]))
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_file_there_are_no_secrets() -> None:
    assert Secrets().keys("mine") == ()


def test_a_secret_may_be_several(tmp_path: Path) -> None:
    secrets = Secrets(written(tmp_path / "s.toml", f'one = "{SPELLED}"\ntwo = ["{SPELLED}", "{SPELLED}"]\n'))
    assert (secrets.keys("one"), secrets.keys("two"), secrets.keys("three")) == ([KEY], [KEY, KEY], ())


@pytest.mark.parametrize(
    "text",
    [
        'mine = "hunter2"',
        'mine = "whsec_aHVudGVyMg=="',
        'mine = "whsec_hunter2!"',
        f'mine = ["{SPELLED}", "hunter2"]',
        "mine = 7",
        'mine = "hunter2',
        "[mine]\nx = 'hunter2'",
    ],
)
def test_what_cannot_be_used_is_refused_without_a_word_of_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadFile) as refused:
        Secrets(written(tmp_path / "s.toml", text))
    assert "hunter2" not in str(refused.value)
    assert "aHVudGVyMg" not in str(refused.value)
    assert "s.toml" in str(refused.value)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        Secrets(tmp_path / "none.toml")


def test_a_file_that_changes_is_read_anew_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "s.toml", f'mine = "{SPELLED}"')
    secrets = Secrets(path)
    written(path, 'mine = "hunter2-and-more"')
    assert secrets.keys("mine") == [KEY]
    assert "stay as they were" in caplog.text
    assert "hunter2" not in caplog.text
    path.unlink()
    assert secrets.keys("mine") == [KEY]
    written(path, f'other = "{SPELLED}"\n')
    assert (secrets.keys("mine"), secrets.keys("other")) == ((), [KEY])


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    path = written(tmp_path / "s.toml", f'mine = "{SPELLED}"')
    Secrets(path)
    assert caplog.text == ""
    os.chmod(path, 0o644)  # noqa: PTH101  the test is about exactly this
    Secrets(path)
    assert "chmod 600" in caplog.text


def test_the_file_of_the_page_can_be_used(repository: Path, tmp_path: Path) -> None:
    (text,) = re.findall(
        r"^```toml\n(.*?)^```", (repository / "docs" / "webhooks.md").read_text(), re.MULTILINE | re.DOTALL
    )
    secrets = Secrets(written(tmp_path / "s.toml", text))
    assert (len(secrets.keys("mine")), len(secrets.keys("turning"))) == (1, 2)
