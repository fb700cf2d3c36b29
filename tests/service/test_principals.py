"""The file of principals: who is known by what, and what is never said of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jobwire_server.service.kept_file import BadFile
from jobwire_server.service.principals import Principal, Principals, Role, entry, new_token, token_digest

DIGEST = token_digest("hunter2")
MAILER = Principal("mailer", frozenset({Role.WORKER}))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_who_has_an_entry_is_known_by_its_token_and_by_nothing_else(tmp_path: Path) -> None:
    token, other = new_token(), new_token()
    lines = entry("mailer", [Role.WORKER], token) + entry("boss", [Role.ADMIN, Role.VIEWER], other)
    known = Principals(written(tmp_path / "t.toml", lines))
    assert known.by_token(token) == MAILER
    assert known.by_token(other) == Principal("boss", frozenset({Role.ADMIN, Role.VIEWER}))
    for wrong in (
        "",
        token[:-1],
        token + "x",
        token.upper(),
        token_digest(token),
        "é\udcff".encode("utf-8", "replace").decode(),
    ):
        assert known.by_token(wrong) is None


def test_a_token_is_long_and_never_the_same(tmp_path: Path) -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) == len("jw_") + 43


def test_two_tokens_are_good_while_one_follows_the_other(tmp_path: Path) -> None:
    text = f'[mailer]\nroles = ["worker"]\nsha256 = ["{DIGEST}", "{token_digest("next")}"]\n'
    known = Principals(written(tmp_path / "t.toml", text))
    assert known.by_token("hunter2") == known.by_token("next") == MAILER


def test_a_certificate_is_known_by_any_of_its_names(tmp_path: Path) -> None:
    text = '[mailer]\nroles = ["worker"]\ncertificate = "mailer.example.org"\n'
    known = Principals(written(tmp_path / "t.toml", text))
    assert known.by_certificate(["localhost", "mailer.example.org"]) == MAILER
    assert known.by_certificate(["example.org"]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mailer = 'hunter2'",
        "[mailer]\nroles = ['worker']",
        "[mailer]\nroles = []\nsha256 = 'hunter2'",
        f"[mailer]\nsha256 = '{DIGEST}'",
        f"[mailer]\nroles = 'worker'\nsha256 = '{DIGEST}'",
        f"[mailer]\nroles = ['hunter2']\nsha256 = '{DIGEST}'",
        "[mailer]\nroles = ['worker']\nsha256 = 'hunter2'",
        "[mailer]\nroles = ['worker']\nsha256 = 7",
        "[mailer]\nroles = ['worker']\ncertificate = ''",
        "[mailer]\nroles = ['worker']\ntoken = 'hunter2'",
        f"['a.b']\nroles = ['worker']\nsha256 = '{DIGEST}'",
        f"[a]\nroles = ['worker']\nsha256 = '{DIGEST}'\n[b]\nroles = ['admin']\nsha256 = '{DIGEST}'",
        "[mailer]\nsha256 = 'hunter2",
    ],
)
def test_what_cannot_be_used_is_refused_without_a_word_of_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadFile) as refused:
        Principals(written(tmp_path / "t.toml", text))
    assert "t.toml" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert DIGEST not in str(refused.value)


def test_a_file_that_changes_is_read_anew_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "t.toml", entry("mailer", [Role.WORKER], "old"))
    known = Principals(path)
    written(path, "[mailer]\nsha256 = 'hunter2'")
    assert known.by_token("old") == MAILER
    path.unlink()
    assert [known.by_token("old") for _ in range(3)] == [MAILER] * 3
    written(path, entry("mailer", [Role.WORKER], "new"))
    assert (known.by_token("old"), known.by_token("new")) == (None, MAILER)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [each.partition(":")[0] for each in told] == ["the principals stay as they were"] * 2, "each once"
    assert "hunter2" not in caplog.text


def test_a_file_that_others_can_write_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "t.toml", entry("mailer", [Role.WORKER], "t"))
    path.chmod(0o644)
    Principals(path)
    assert caplog.text == "", "digests are no secret"
    path.chmod(0o664)
    Principals(path)
    assert "chmod go-w" in caplog.text
