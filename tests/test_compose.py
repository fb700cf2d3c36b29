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
from jobwire_server.store.redis import topology
from jobwire_server.telemetry import logs

DEPLOY: Final = Path(__file__).resolve().parent.parent / "deploy"
FILES: Final = sorted(path.name for path in (DEPLOY / "compose").glob("*.yml") if path.name != "parts.yml")

OURS: Final = "jobwire:local"
HAS: Final = {"haproxy": {"haproxy", "wget"}, "valkey/valkey": {"valkey-server", "valkey-cli", "sh", "cat", "grep"}}
"""The commands of each image that is not ours."""


@dataclass(frozen=True, slots=True)
class Composed:
    """One compose file, in a copy of deploy/ where the secrets have been made."""

    folder: Path
    content: dict[str, Any]
    services: dict[str, dict[str, Any]]
    """With what they extend."""

    def file(self, kind: str, name: str) -> Path:
        """Of a secret or a config."""
        return self.folder / str(self.content[kind][name]["file"])

    def given(self, service: dict[str, Any]) -> list[Path]:
        """The files that a container of it finds."""
        configs = [self.file("configs", config["source"]) for config in service.get("configs", ())]
        return configs + [self.file("secrets", name) for name in service.get("secrets", ())]

    @property
    def addresses(self) -> list[str]:
        """That are fixed, service by service."""
        networks = [service.get("networks", {}) for service in self.services.values()]
        fixed = [network["store"] for network in networks if isinstance(network, dict) and network.get("store")]
        return [network["ipv4_address"] for network in fixed]


def read(file: Path) -> Composed:
    content = yaml.safe_load(file.read_text())
    services = {name: extended(service, file) for name, service in content["services"].items()}
    return Composed(file.parent, content, services)


def extended(service: dict[str, Any], file: Path) -> dict[str, Any]:
    """As Compose has it: what both have is joined where it is a collection, and is the service's own otherwise."""
    if "extends" not in service:
        return service
    base_file = file.parent / service["extends"].get("file", file.name)
    base = yaml.safe_load(base_file.read_text())["services"][service["extends"]["service"]]
    merged = dict(extended(base, base_file))
    for key, own in service.items():
        if key in ("secrets", "configs", "volumes", "ports") and key in merged:
            merged[key] = [*merged[key], *own]
        elif key == "networks" and key in merged:
            merged[key] = dict.fromkeys(merged[key]) | dict(own)
        elif isinstance(own, dict) and isinstance(merged.get(key), dict):
            merged[key] = merged[key] | own
        elif key != "extends":
            merged[key] = own
    return merged


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("repository") / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([copy / "compose" / "secrets.sh"], check=True, capture_output=True)
    return copy


@pytest.fixture(params=FILES)
def composed(request: pytest.FixtureRequest, deploy: Path) -> Composed:
    return read(deploy / "compose" / request.param)


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
    assert FILES == ["cluster.yml", "development.yml", "redis.yml", "sentinel.yml"]


def test_what_a_file_declares_is_used_and_what_it_uses_is_declared(composed: Composed) -> None:
    used: dict[str, set[str]] = {kind: set() for kind in ("networks", "volumes", "secrets", "configs")}
    for service in composed.services.values():
        used["networks"] |= set(service.get("networks", ()))
        used["volumes"] |= {volume.partition(":")[0] for volume in service.get("volumes", ())}
        used["secrets"] |= set(service.get("secrets", ()))
        used["configs"] |= {config["source"] for config in service.get("configs", ())}
    assert used == {kind: set(composed.content.get(kind, {})) for kind in used}


def test_what_is_waited_for_tells_that_it_is_there(composed: Composed) -> None:
    waits = [wait for service in composed.services.values() for wait in service.get("depends_on", {}).items()]
    ends = {name for name, wait in waits if wait == {"condition": "service_completed_successfully"}}
    healthy = {name for name, wait in waits if wait == {"condition": "service_healthy"}}
    assert ends | healthy == {name for name, _ in waits}
    for name, service in composed.services.items():
        assert ("healthcheck" in service) == (service["image"] != OURS and name not in ends)  # ours has the image's


def test_every_file_that_a_container_is_given_is_there(composed: Composed) -> None:
    for kind in ("secrets", "configs"):
        for name in composed.content.get(kind, {}):
            assert composed.file(kind, name).is_file()
    for service in composed.services.values():
        texts = [json.dumps(service), *(path.read_text() for path in composed.given(service))]
        named = {name for text in texts for name in re.findall(r"/run/secrets/([\w.]+)", text)}
        named |= {word for word in service.get("command", ()) if word in composed.content["secrets"]}  # of start.sh
        assert named == set(service.get("secrets", ()))


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
        if config.store.startswith("sqlite:///"):
            folders = [volume.partition(":")[2] for volume in service["volumes"]]
            assert str(Path(config.store.removeprefix("sqlite:///")).parent) in folders
        else:
            address = topology.parse(config.store)
            assert address.user == f"jobwire:{composed.file('secrets', 'password').read_text()}@"
            assert {node.host for node in address.nodes} <= set(composed.services)
            if address.topology is topology.Topology.SENTINEL:
                watched = composed.file("secrets", "sentinel.conf").read_text()
                assert f"sentinel monitor {address.service} " in watched
                assert {f"port {node.port}" for node in address.nodes} <= set(watched.splitlines())


def test_every_command_is_one_that_its_image_has(composed: Composed) -> None:
    for service in composed.services.values():
        if service["image"] != OURS and (words := service.get("command")):
            assert words[0] in HAS[service["image"].partition(":")[0]]
            if words[0] == "sh":
                assert words[1] in [config["target"] for config in service["configs"]]


def test_every_address_is_that_of_one_container(composed: Composed) -> None:
    assert len(set(composed.addresses)) == len(composed.addresses)
    for service in composed.services.values():
        commands = " ".join(service.get("command", ()))
        texts = [commands, *(path.read_text() for path in composed.given(service) if path.name == "sentinel.conf")]
        assert {each for text in texts for each in re.findall(r"172\.[\d.]+", text)} <= set(composed.addresses)


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
            program, command, *words = of_the_image(dockerfile, "HEALTHCHECK")
            assert (program, command) == ("jobwire", "health")
            asked = cli.health.make_context("health", words).params["address"]
            assert split_address(asked) == ("127.0.0.1", 7272)
            continue
        if "healthcheck" not in service:
            continue  # it ends
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
    service = read(compose / "redis.yml").services["valkey"]
    program, *words = [word.replace("/run/secrets", str(compose / "secrets")) for word in service["command"]]
    assert program == "valkey-server"
    words += ["--aclfile", str(compose / "secrets" / "users.acl")]
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
    for user, file in (("jobwire", "password"), ("engine", "engine")):
        digest = hashlib.sha256((secrets / file).read_bytes()).hexdigest()
        assert f"user {user} on #{digest} " in (secrets / "users.acl").read_text()
    for file in ("valkey.conf", "sentinel.conf"):
        assert "PASSWORD" not in (secrets / file).read_text().partition("\n")[2]
    again = subprocess.run([deploy / "compose" / "secrets.sh"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "There are secrets already" in again.stderr
    assert (secrets / "password").read_text() == password


def test_a_start_leaves_alone_what_a_failover_has_written(deploy: Path, tmp_path: Path) -> None:
    """Started by its first configuration, who was a primary once would be one again, with what it knew then."""
    script = (deploy / "compose" / "start.sh").read_text()
    server = tmp_path / "valkey-server"
    server.write_text('#!/bin/sh\necho "started with $*"\n')
    server.chmod(0o755)

    def start() -> str:
        words = ["valkey.conf", "replicaof 172.30.72.11 6379", "--option"]
        return subprocess.run(
            ["sh", "-c", script.replace("/run/secrets", str(deploy / "compose" / "secrets")), "start.sh", *words],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert start() == "started with valkey.conf --option\n"
    first = (deploy / "compose" / "secrets" / "valkey.conf").read_text()
    written = tmp_path / "valkey.conf"
    assert written.read_text() == f"{first}replicaof 172.30.72.11 6379\n"
    written.write_text("replicaof 172.30.72.13 6379\n")
    assert start() == "started with valkey.conf --option\n"
    assert written.read_text() == "replicaof 172.30.72.13 6379\n"


@pytest.mark.parametrize("name", sorted(path.name for path in (DEPLOY / "compose").glob("*.sh")))
def test_every_script_can_be_read(name: str, deploy: Path) -> None:
    read_only = subprocess.run(["sh", "-n", deploy / "compose" / name], capture_output=True, text=True, check=False)
    assert (read_only.returncode, read_only.stderr) == (0, "")
