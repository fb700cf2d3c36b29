"""A server that asks for TLS and a token, as an operator starts it and the command reaches it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import trustme
from click.testing import CliRunner
from tests.cli.conftest import Shell
from tests.server_process import ServerProcess, serving
from tests.valkey_process import Keyspace, ValkeyProcess

from jobwire_client.cli import main
from jobwire_server.config import Config, ConfigError
from jobwire_server.service.principals import Role, entry

TOKEN = "jw_boss-canary"


@dataclass(frozen=True, slots=True)
class Folder:
    """An operator's."""

    ca: Path
    cert: Path
    key: Path
    tokens: Path
    token: Path

    @property
    def serves(self) -> list[str]:
        """The options of `serve`."""
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key), "--tokens", str(self.tokens)]

    @property
    def shown(self) -> list[str]:
        """The options of a command that calls."""
        return ["--ca", str(self.ca), "--token-file", str(self.token)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("tls")
    folder = Folder(*(path / name for name in ("ca.pem", "server.pem", "server.key", "tokens.toml", "token")))
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "jobs.example.org")
    authority.cert_pem.write_to_path(str(folder.ca))
    issued.cert_chain_pems[0].write_to_path(str(folder.cert))
    issued.private_key_pem.write_to_path(str(folder.key))
    folder.tokens.write_text(entry("boss", [Role.ADMIN], TOKEN))
    folder.token.write_text(f"{TOKEN}\n")
    for secret in (folder.key, folder.token):
        secret.chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def server(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with serving("memory://", log, "127.0.0.1:0", *folder.serves, "--http", "127.0.0.1:0") as server:
        yield server


@pytest.fixture
def jobwire(server: ServerProcess, tmp_path: Path) -> Shell:
    return Shell(tmp_path, server.address)


def test_the_command_shows_what_the_server_asks_for(jobwire: Shell, folder: Folder) -> None:
    assert jobwire("create", "{}", "--type", "mail", "--id", "a", *folder.shown).code == 0
    variables = {"JOBWIRE_CA": str(folder.ca), "JOBWIRE_TOKEN_FILE": str(folder.token)}
    assert jobwire("get", "a", "--output", "json", **variables).json["id"] == "a"


def test_the_command_says_what_is_missing(jobwire: Shell, folder: Folder) -> None:
    ran = jobwire("get", "a", "--ca", str(folder.ca))
    assert (ran.code, ran.err.splitlines()[0]) == (1, "jobwire: this server asks for a token")
    assert "--token-file" in ran.err
    ran = jobwire("get", "a", "--timeout", "1", "--tls", "--token-file", str(folder.token))
    assert ran.code == 3, "no public authority has signed it"


def test_a_worker_that_is_not_known_ends_instead_of_trying_for_ever(jobwire: Shell, folder: Folder) -> None:
    wrong = jobwire("work", "--exec", "cat", "--ca", str(folder.ca))
    assert (wrong.code, wrong.err) == (1, "jobwire: this server asks for a token\n")


def test_health_asks_by_tls_and_by_another_name(jobwire: Shell, folder: Folder) -> None:
    assert jobwire("health", "--ca", str(folder.ca)).out == "SERVING\n"
    assert jobwire("health", JOBWIRE_CA=str(folder.ca), JOBWIRE_SERVER_NAME="jobs.example.org").code == 0
    assert jobwire("health", "--ca", str(folder.ca), "--server-name", "other.example.org").code == 3
    assert jobwire("health", "--cert", str(folder.cert)).code == 2


def test_the_greeting_can_be_pasted(server: ServerProcess, folder: Folder) -> None:
    told = server.rest_of_greeting()
    assert f"-cacert {folder.cert} -expand-headers -H 'authorization: Bearer ${{TOKEN}}'" in told
    assert "-plaintext" not in told
    assert "WARNING" not in told
    assert server.http


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_each_of_several_processes_asks_for_the_same(
    valkey: ValkeyProcess, folder: Folder, tmp_path: Path, kind: str
) -> None:
    valkey.flush()
    options = ("--processes", "2", "--http", "127.0.0.1:0", *folder.serves)
    with serving(Keyspace(valkey, "tls").url, tmp_path / "server.log", "127.0.0.1:0", *options) as server:
        for _ in range(8):  # each a connection, and the kernel's choice of a process
            if kind == "grpc":
                ran = Shell(tmp_path, server.address)("stats", *folder.shown)
                assert ran.code == 0
            else:
                context = ssl.create_default_context(cafile=str(folder.ca))
                asked = Request(f"https://{server.http}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
                with urlopen(asked, timeout=20, context=context) as answer:
                    assert answer.status == 200


TLS: dict[str, Any] = {"tls_cert": "c", "tls_key": "k"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, r"no TLS \(--tls-cert, --tls-key\) and no login \(--tokens, or --tls-client-ca\); give that, or"),
        (TLS, r"there is no login \(--tokens, or --tls-client-ca\)"),
        ({"tokens": "t"}, r"there is no TLS \(--tls-cert, --tls-key\)"),
    ],
)
def test_what_others_can_reach_needs_tls_and_a_login(settings: dict[str, Any], says: str) -> None:
    places: list[dict[str, Any]] = [
        {"listen": "0.0.0.0:7272", "http": "off"},
        {"listen": "127.0.0.1:7272", "http": "0.0.0.0:8272"},
    ]
    for where in places:
        with pytest.raises(ConfigError, match=says):
            Config(**where, **settings)
        assert Config(**where, **settings, insecure=True).missing


@pytest.mark.parametrize("login", ["tokens", "tls_client_ca"])
def test_with_both_it_needs_no_word_more(login: str) -> None:
    settings: dict[str, Any] = TLS | {login: "f"}
    config = Config(listen="0.0.0.0:7272", **settings)
    assert config.missing == []
    assert not config.serves_reflection


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["--tls-cert", "c"], "--tls-cert and --tls-key belong together"),
        (["--tls-key", "k"], "--tls-cert and --tls-key belong together"),
        (["--tls-client-ca", "a"], "--tls-client-ca: clients show certificates by TLS only"),
        (["--tls-cert", "c", "--tls-key", "k"], "--tls-cert, --tls-key, --tls-client-ca: c: No such file or directory"),
    ],
)
def test_settings_of_tls_that_will_not_do_are_refused(settings: list[str], says: str) -> None:
    ran = CliRunner().invoke(main, ["serve", "--store", "memory://", "--listen", "127.0.0.1:0", *settings])
    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"jobwire: {says}")
