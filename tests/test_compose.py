"""The compose files, judged without containers: what they name is there, and what they run is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry
from tests.valkey_process import redis_binary, valkey_binary

from jobwire_client.cli import main
from jobwire_server import cli, serving
from jobwire_server.config import Config, split_address
from jobwire_server.telemetry import logs

DEPLOY: Final = Path(__file__).resolve().parent.parent / "deploy"
FILES: Final = sorted(path.name for path in (DEPLOY / "compose").glob("*.yml"))

OURS: Final = "jobwire:local"
HAS: Final = {"haproxy": {"haproxy", "wget"}, "valkey/valkey": {"valkey-server", "valkey-cli", "cat", "grep"}}
"""The commands of each image that is not ours."""


@dataclass(frozen=True, slots=True)
class Composed:
    """One compose file, in a copy of deploy/ where the secrets have been made."""

    folder: Path
    content: dict[str, Any]

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.content["services"]
        return found

    def file(self, kind: str, name: str) -> Path:
        """Of a secret or a config."""
        return self.folder / str(self.content[kind][name]["file"])


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("repository") / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([copy / "compose" / "secrets.sh"], check=True, capture_output=True)
    return copy


@pytest.fixture(params=FILES)
def composed(request: pytest.FixtureRequest, deploy: Path) -> Composed:
    file = deploy / "compose" / request.param
    return Composed(file.parent, yaml.safe_load(file.read_text()))


@pytest.fixture
def dockerfile(repository: Path) -> str:
    return (repository / "Dockerfile").read_text()


def of_the_image(dockerfile: str, instruction: str) -> list[str]:
    """The words of its last CMD or HEALTHCHECK."""
    found = re.findall(rf"^{instruction}\b[^\[]*(\[.*\])$", dockerfile, re.MULTILINE)
    words: list[str] = json.loads(found[-1])
    return words


def served(composed: Composed, service: dict[str, Any], dockerfile: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """What `jobwire serve` makes of the command line and the environment of this service."""
    taken: list[Config] = []

    def serve(config: Config) -> int:
        taken.append(config)
        return 0

    monkeypatch.setattr(serving, "serve_alone", serve)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("JOBWIRE_")}
    for name, value in service.get("environment", {}).items():
        inside, _, secret = value.rpartition("/")
        environment[name] = str(composed.file("secrets", secret)) if inside == "/run/secrets" else value
    program, *words = service.get("command", of_the_image(dockerfile, "CMD"))
    assert program == "jobwire"
    ran = CliRunner().invoke(main, words, env=environment)
    assert ran.exit_code == 0, ran.output
    (config,) = taken
    return config


def ports(composed: Composed) -> Iterator[tuple[str, str, int]]:
    """Service, address on the host, port in the container."""
    for name, service in composed.services.items():
        for port in service.get("ports", ()):
            address, _, inside = port.rpartition(":")
            yield name, address, int(inside)


def test_there_are_compose_files() -> None:
    assert {"development.yml", "redis.yml"} <= set(FILES)


def test_what_a_file_declares_is_used_and_what_it_uses_is_declared(composed: Composed) -> None:
    used: dict[str, set[str]] = {kind: set() for kind in ("networks", "volumes", "secrets", "configs")}
    for service in composed.services.values():
        used["networks"] |= set(service.get("networks", ()))
        used["volumes"] |= {volume.partition(":")[0] for volume in service.get("volumes", ())}
        used["secrets"] |= set(service.get("secrets", ()))
        used["configs"] |= {config["source"] for config in service.get("configs", ())}
        assert set(service.get("depends_on", {})) <= set(composed.services)
    assert used == {kind: set(composed.content.get(kind, {})) for kind in used}


def test_every_file_that_a_container_is_given_is_there(composed: Composed) -> None:
    for kind in ("secrets", "configs"):
        for name in composed.content.get(kind, {}):
            assert composed.file(kind, name).is_file()
    for service in composed.services.values():
        named = re.findall(r"/run/secrets/([\w.]+)", json.dumps(service))
        assert set(named) == set(service.get("secrets", ()))


def test_every_container_is_read_only_and_without_privileges(composed: Composed) -> None:
    for service in composed.services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        image, _, tag = service["image"].partition(":")
        assert f"{image}:{tag}" == OURS or (image in HAS and re.match(r"\d+\.\d+\.\d+-", tag))


def test_every_server_is_one_that_jobwire_would_start(
    composed: Composed, dockerfile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {name: service for name, service in composed.services.items() if service["image"] == OURS}
    assert ours
    for service in ours.values():
        config = served(composed, service, dockerfile, monkeypatch)
        assert (config.listen, config.http_address) == ("0.0.0.0:7272", "0.0.0.0:8272")
        scheme, _, where = config.store.partition("://")
        if scheme == "sqlite":
            folders = [volume.partition(":")[2] for volume in service["volumes"]]
            assert str(Path(where[1:]).parent) in folders
        else:
            user, host = where.split("@")
            assert user == f"jobwire:{composed.file('secrets', 'password').read_text()}"
            assert host.partition(":")[0] in composed.services


def test_only_this_machine_reaches_what_has_no_login(composed: Composed) -> None:
    published = list(ports(composed))
    assert sorted(port for _, _, port in published) == [7272, 8272]
    for name, address, port in published:
        assert address == f"127.0.0.1:{port}"
        service = composed.services[name]
        if service["image"] != OURS:
            balancer = composed.file("configs", "balancer").read_text()
            assert re.search(rf"^    bind :{port}\b", balancer, re.MULTILINE)


def test_every_health_check_asks_what_there_is(composed: Composed, dockerfile: str) -> None:
    for name, service in composed.services.items():
        if service["image"] == OURS:
            assert "healthcheck" not in service  # it is the image's
            program, command, *words = of_the_image(dockerfile, "HEALTHCHECK")
            assert (program, command) == ("jobwire", "health")
            asked = cli.health.make_context("health", words).params["address"]
            assert split_address(asked) == ("127.0.0.1", 7272)
            continue
        how, *words = service["healthcheck"]["test"]
        # In a line for a shell a command stands first, in `$$(…)`, behind a `|`, or behind what is set for it.
        run = words[:1] if how == "CMD" else re.findall(r"(?:^|\$\$\(|\| |^\w+=\S+ .*?\) )([a-z][\w-]*)", words[0])
        assert run
        assert set(run) <= HAS[service["image"].partition(":")[0]]
        for port in re.findall(r"http://127\.0\.0\.1:(\d+)/", words[-1]):
            assert int(port) in {inside for each, _, inside in ports(composed) if each == name}


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path: one of pytest's may be too long for a socket."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@contextmanager
def composed_engine(engine: str, deploy: Path, folder: Path) -> Iterator[Redis]:
    """An engine as redis.yml has it, its data in `folder`, and its client with the password."""
    compose = deploy / "compose"
    service = yaml.safe_load((compose / "redis.yml").read_text())["services"]["valkey"]
    program, *words = [word.replace("/run/secrets", str(compose / "secrets")) for word in service["command"]]
    assert program == "valkey-server"
    binary = valkey_binary() if engine == "valkey" else redis_binary()
    socket = f"{folder}/engine.sock"
    command = [str(binary), *words, "--port", "0", "--unixsocket", socket, "--dir", str(folder)]
    password = (compose / "secrets" / "password").read_text()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        Redis(unix_socket_path=socket, username="jobwire", password=password) as client,
    ):
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if "ready to accept connections" in line.lower():
                    break
            else:
                pytest.fail(said)
            yield client
        finally:
            process.kill()


@pytest.mark.parametrize("engine", ["valkey", "redis"])
def test_what_a_script_has_written_is_there_after_a_restart(engine: str, deploy: Path, folder: Path) -> None:
    """Redis 7.0 reads its append-only file as the user `default`, and refuses it what that user may not do."""
    keys = ["{jw:0}:one", "{jw:0}:two"]  # a script that writes one key is no transaction in that file
    with composed_engine(engine, deploy, folder) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        client.eval("redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 2)", len(keys), *keys)
    with composed_engine(engine, deploy, folder) as client:
        assert client.mget(keys) == [b"1", b"2"]


@pytest.mark.parametrize("engine", ["valkey", "redis"])
def test_nobody_gets_in_without_the_password(engine: str, deploy: Path, folder: Path) -> None:
    with composed_engine(engine, deploy, folder) as client:
        path = client.connection_pool.connection_kwargs["path"]
        once = Retry(NoBackoff(), 0)
        for user in (None, "default", "jobwire"):
            with (
                Redis(unix_socket_path=path, username=user, password=user and "x", retry=once) as stranger,
                pytest.raises((AuthenticationError, ResponseError)),
            ):
                stranger.ping()


def test_secrets_are_made_once_and_closed(deploy: Path) -> None:
    secrets = deploy / "compose" / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    password = (secrets / "password").read_text()
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in (secrets / "users.acl").read_text()
    again = subprocess.run([deploy / "compose" / "secrets.sh"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "There are secrets already" in again.stderr
    assert (secrets / "password").read_text() == password
