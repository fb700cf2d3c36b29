"""`jobwire serve` and `jobwire health`: what they refuse, and in which words."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from click.testing import CliRunner
from tests.server_process import serving
from tests.valkey_process import Keyspace

from jobwire_server.app import open_store
from jobwire_server.cli import main
from jobwire_server.config import Config, ConfigError, read_limits
from jobwire_server.exits import EXIT_UNREACHABLE
from jobwire_server.service.principals import Principal, Principals, Role


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///a.db?mode=ro", "no options"),
        ("sqlite:///a#b.db", "none of"),
        ("sqlite:///a%20b.db", "none of"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///folder/", "sqlite:///FILE"),
        ("sqlite://a.db", "sqlite:///FILE"),
        ("postgres://somebody:secret@host/db", "postgres is no store"),
        ("jobs.db", "no URL"),
        ("redis://:secret@host:port", "port"),
        ("redis://host?pool=many", "unknown in the store URL: pool"),
        ("memory://a", "memory is no store"),
        ("auto", "name the store here"),
        ("redis+sentinel://host", "what the Sentinels call the service"),
        ("redis://host,other", "need redis.sentinel:// or redis.cluster://"),
    ],
)
def test_a_store_url_that_would_be_misread_is_refused_and_never_repeated(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("address", ["7272", ":7272", "::1:7272", "localhost:", "localhost:70000", "localhost:http"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        Config(listen=address)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_batch_items=10", "max_batch_items cannot be set; there are max_payload_bytes,"),
        ("payload=10", "payload cannot be set"),
        ("max_payload_bytes=786433", "from 1 to 786432"),
        ("max_payload_bytes=0", "from 1"),
        ("max_payload_bytes=1MiB", "expected max_payload_bytes=N"),
        ("max_payload_bytes", "expected max_payload_bytes=N"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_limits(f"max_labels=64,{text}")


@pytest.mark.parametrize("address", ["0.0.0.0:7272", "[::]:7272", "10.0.0.1:7272", "example.com:7272"])
def test_an_address_that_others_can_reach_needs_insecure(address: str) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        Config(listen=address)
    assert not Config(listen=address, insecure=True).serves_reflection


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:7272", "[::1]:7272"])
def test_on_loopback_the_api_describes_itself(address: str) -> None:
    assert Config(listen=address).serves_reflection


def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ran = CliRunner().invoke(main, ["serve", "--store", f"sqlite:///{tmp_path}/a.db", "--listen", address])
    assert ran.exit_code == 1
    assert f"{address} is in use by another process" in ran.stderr


@pytest.mark.parametrize(
    ("listen", "http", "at"),
    [
        ("127.0.0.1:7272", None, "127.0.0.1:8272"),
        ("127.0.0.1:0", None, "127.0.0.1:0"),
        ("[::1]:7000", None, "[::1]:8000"),
        ("127.0.0.1:7272", "localhost:80", "localhost:80"),
        ("127.0.0.1:65535", "off", None),
    ],
)
def test_http_stands_a_thousand_above_grpc_unless_told_otherwise(listen: str, http: str | None, at: str | None) -> None:
    assert Config(listen=listen, http=http).http_address == at


@pytest.mark.parametrize(
    ("listen", "http", "says"),
    [
        ("127.0.0.1:65000", None, "say --http too"),
        ("127.0.0.1:7272", "on", "--http on: expected HOST:PORT"),
        ("127.0.0.1:7272", "0.0.0.0:8272", "--http 0.0.0.0:8272: others can reach.*--insecure"),
    ],
)
def test_an_address_for_http_that_will_not_do_is_refused(listen: str, http: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Config(listen=listen, http=http)


def test_a_port_of_http_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        options = ["--store", f"sqlite:///{tmp_path}/a.db", "--listen", "127.0.0.1:0", "--http", address]
        ran = CliRunner().invoke(main, ["serve", *options])
    assert ran.exit_code == 1
    assert f"{address} is in use by another process; --http 127.0.0.1:0 takes a free port" in ran.stderr


def test_http_is_served_until_the_signal_and_off_where_it_is_not_wanted(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with serving("memory://", log, "127.0.0.1:0", "--http", "127.0.0.1:0") as server:
        with urlopen(f"http://{server.http}/readyz", timeout=10) as answer:
            assert answer.status == 200
        assert server.terminate() == 0
        with pytest.raises(URLError, match="refused"):
            urlopen(f"http://{server.http}/readyz", timeout=10)
    assert "Traceback" not in log.read_text()
    with serving("memory://", tmp_path / "other.log", "127.0.0.1:0", "--http", "off") as server:
        assert not server.http


def test_a_second_server_on_one_file_is_told_who_has_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with serving(url, tmp_path / "server.log") as server:
        ran = CliRunner().invoke(main, ["serve", "--store", url, "--listen", "127.0.0.1:0"])
        assert f"in use by process {server.pid}" in ran.stderr
    assert ran.exit_code == 1


def test_health_tells_a_server_that_serves_from_one_that_does_not(tmp_path: Path) -> None:
    with serving("memory://", tmp_path / "server.log") as server:
        ran = CliRunner().invoke(main, ["health", server.address])
        assert (ran.exit_code, ran.output) == (0, "SERVING\n")
        assert server.terminate() == 0
        ran = CliRunner().invoke(main, ["health", server.address])
    assert ran.exit_code == EXIT_UNREACHABLE
    assert "does not answer" in ran.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_exit_0(tmp_path: Path, how: signal.Signals) -> None:
    with serving(f"sqlite:///{tmp_path}/a.db", tmp_path / "server.log") as server:
        assert server.terminate(how) == 0
    assert not (tmp_path / "a.db-wal").exists(), "the store was not closed"


def test_a_token_is_shown_once_and_its_lines_are_what_serve_reads(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["token", "new", "mailer", "--role", "worker", "--role", "viewer"])
    token = made.stderr.splitlines()[-1]
    assert made.exit_code == 0
    assert token not in made.stdout
    (tmp_path / "tokens.toml").write_text(made.stdout)
    known = Principals(tmp_path / "tokens.toml").by_token(token)
    assert known == Principal("mailer", frozenset({Role.WORKER, Role.VIEWER}))


def test_a_name_that_toml_would_have_to_quote_is_refused() -> None:
    made = CliRunner().invoke(main, ["token", "new", "a.b", "--role", "worker"])
    assert (made.exit_code, "letters, digits" in made.stderr) == (2, True)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_file_of_tokens_that_will_not_do_is_said_once(tmp_path: Path, processes: str) -> None:
    store = "redis://127.0.0.1:1" if processes == "2" else "memory://"
    options = ["--store", store, "--listen", "127.0.0.1:0", "--processes", processes]
    ran = CliRunner().invoke(main, ["serve", *options, "--tokens", str(tmp_path / "none.toml")])
    assert ran.exit_code == 2
    assert ran.stderr == f"jobwire: --tokens: {tmp_path}/none.toml: No such file or directory\n"


# --- auto ---------------------------------------------------------------------------------------------------


def warned(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if "WARNING" in line]


def test_auto_is_the_file_where_no_redis_answers_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBWIRE_REDIS_URL", "redis://:hunter2@127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    with serving("auto", tmp_path / "server.log") as server:
        assert f"sqlite:///{tmp_path}/jobwire.db" in server.rest_of_greeting()
    (line,) = warned(tmp_path / "server.log")
    assert "redis://:***@127.0.0.1:1 does not answer" in line
    assert "jobs are kept in sqlite:///jobwire.db" in line


@pytest.mark.parametrize("engine", ["valkey"])
def test_auto_is_the_redis_that_answers_and_tells_of_the_file_that_is_not_seen(
    keyspace: Keyspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBWIRE_REDIS_URL", keyspace.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobwire.db").touch()
    with serving("auto", tmp_path / "server.log") as server:
        assert f":{keyspace.server.port}" in server.rest_of_greeting()
    which, other = warned(tmp_path / "server.log")
    assert f":{keyspace.server.port}" in which
    assert "jobwire.db is here as well" in other


@pytest.mark.parametrize("engine", ["valkey"])
def test_auto_does_not_look_elsewhere_where_redis_refuses(
    keyspace: Keyspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password is no outage: with a file of its own, this server would part from the others."""
    monkeypatch.setenv("JOBWIRE_REDIS_URL", keyspace.url_of("nobody:hunter2"))
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(main, ["serve", "--store", "auto", "--listen", "127.0.0.1:0"])
    assert ran.exit_code == 1
    assert "cannot open" in ran.stderr
    assert not (tmp_path / "jobwire.db").exists()
