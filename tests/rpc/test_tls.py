"""TLS and certificates of clients, over ports of gRPC and HTTP, with authorities of our own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from jobwire.v1 import admin_service_pb2 as api
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire_client import AsyncClient, JobwireError, PermissionDenied, Unauthenticated, Worker
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.service.certificates import Certificates
from jobwire_server.service.kept_file import BadFile
from jobwire_server.service.principals import Role, entry

PATIENCE: Final = 20.0
HOSTS: Final = ("localhost", "127.0.0.1")
INFO: Final = "/jobwire.v1.AdminService/GetServerInfo"


class Files:
    """What an operator has put into a folder: the server's certificate, and whatever else a test adds."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self.folder = folder
        self.authority = authority
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.give("server", authority.issue_cert(*HOSTS))

    def give(self, name: str, issued: trustme.LeafCert) -> None:
        self.key(name).write_bytes(issued.private_key_pem.bytes())
        self.key(name).chmod(0o600)
        self.cert(name).write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))

    def cert(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def tokens(self, text: str) -> str:
        path = self.folder / "tokens.toml"
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    @asynccontextmanager
    async def served(self, **settings: Any) -> AsyncIterator[App]:
        app = App(
            Config(
                store="memory://",
                listen="127.0.0.1:0",
                drain_timeout=1,
                tls_cert=str(self.cert("server")),
                tls_key=str(self.key("server")),
                **settings,
            )
        )
        await app.start()
        try:
            yield app
        finally:
            await app.stop()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, trustme.CA())


async def asked_by_grpc(app: App, ca: bytes, *own: bytes, token: str = "") -> str:
    """OK, or the status. Each time by a connection of its own."""
    credentials = grpc.ssl_channel_credentials(ca, *own)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50))
    async with grpc.aio.secure_channel(app.address, credentials, options=options) as channel:
        stub: Any = AdminServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            await stub.GetServerInfo(api.GetServerInfoRequest(), timeout=PATIENCE, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def asked_by_http(app: App, context: ssl.SSLContext) -> int:
    """The status; SSLError when there is no connection."""
    assert app.http_address is not None
    host, _, port = app.http_address.rpartition(":")
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        try:
            head = f"POST {INFO} HTTP/1.1\r\nhost: {app.http_address}\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}connection: close\r\ncontent-length: 2\r\n\r\n{{}}".encode())
            answer = await reader.read()
        finally:
            writer.close()
    if not answer:
        raise ssl.SSLError("closed before an answer")
    return int(answer.split()[1])


def trusting(files: Files, own: str = "") -> ssl.SSLContext:
    """What a client is told of TLS; with a certificate of its own where `own` names one."""
    context = ssl.create_default_context(cafile=str(files.ca))
    if own:
        context.load_cert_chain(files.cert(own), files.key(own))
    return context


async def test_grpc_and_http_are_served_by_tls_and_by_nothing_else(files: Files) -> None:
    async with files.served() as app:
        assert await asked_by_grpc(app, files.ca.read_bytes()) == "OK"
        assert await asked_by_http(app, trusting(files)) == 200
        async with grpc.aio.insecure_channel(app.address) as channel:
            stub: Any = AdminServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GetServerInfo(api.GetServerInfoRequest(), timeout=PATIENCE)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")  # that they are old is the point
@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_nobody_is_served_by_less_than_tls_1_2(files: Files, kind: str) -> None:
    old = trusting(files)
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with files.served() as app:
        host, _, port = (app.address if kind == "grpc" else app.http_address or "").rpartition(":")
        for version, is_served in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            old.maximum_version = version
            try:
                _, writer = await asyncio.open_connection(host, int(port), ssl=old)
                writer.close()
                assert is_served
            except (ssl.SSLError, ConnectionError):
                assert not is_served


async def test_the_next_connection_is_given_the_certificate_that_lies_there_then(files: Files) -> None:
    async with files.served() as app:
        follower = trustme.CA()
        assert await asked_by_grpc(app, files.ca.read_bytes()) == "OK"
        files.give("server", follower.issue_cert(*HOSTS))
        follower.cert_pem.write_to_path(str(files.ca))
        assert await asked_by_grpc(app, files.ca.read_bytes()) == "OK"
        assert await asked_by_http(app, trusting(files)) == 200


async def test_while_certificate_and_key_do_not_fit_those_from_before_are_in_force(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async with files.served() as app:
        other = files.authority.issue_cert(*HOSTS)
        files.key("server").write_bytes(other.private_key_pem.bytes())
        assert await asked_by_grpc(app, files.ca.read_bytes()) == "OK"
        assert await asked_by_http(app, trusting(files)) == 200
    assert "the certificates stay as they were: the key in" in caplog.text
    assert "PRIVATE" not in caplog.text


async def test_of_clients_with_certificates_the_file_says_who_they_are(files: Files) -> None:
    files.give("mailer", files.authority.issue_cert("mailer.example.org"))
    files.give("stranger", files.authority.issue_cert("stranger.example.org"))
    tokens = files.tokens(
        "[mailer]\nroles = ['worker']\ncertificate = 'mailer.example.org'\n" + entry("boss", [Role.ADMIN], "jw_boss")
    )
    ca = files.ca.read_bytes()
    async with files.served(tls_client_ca=str(files.ca), tokens=tokens) as app:
        own = {name: (files.key(name).read_bytes(), files.cert(name).read_bytes()) for name in ("mailer", "stranger")}
        assert await asked_by_grpc(app, ca) == "UNAVAILABLE", "no certificate, no connection"
        assert await asked_by_grpc(app, ca, *own["mailer"]) == "OK"
        assert await asked_by_grpc(app, ca, *own["stranger"]) == "UNAUTHENTICATED"
        assert await asked_by_grpc(app, ca, *own["stranger"], token="jw_boss") == "OK"
        assert await asked_by_grpc(app, ca, *own["mailer"], token="wrong") == "UNAUTHENTICATED"
        assert await asked_by_http(app, trusting(files, "mailer")) == 200
        assert await asked_by_http(app, trusting(files, "stranger")) == 401
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asked_by_http(app, trusting(files))


async def test_another_authority_of_clients_is_in_force_from_the_next_connection_on(files: Files) -> None:
    trusted, authorities = files.folder / "clients.pem", {"before": trustme.CA(), "after": trustme.CA()}
    for name, authority in authorities.items():
        files.give(name, authority.issue_cert("mailer.example.org"))
    authorities["before"].cert_pem.write_to_path(str(trusted))
    async with files.served(tls_client_ca=str(trusted)) as app:

        async def let_in(name: str) -> tuple[bool, bool]:
            own = files.key(name).read_bytes(), files.cert(name).read_bytes()
            by_grpc = await asked_by_grpc(app, files.ca.read_bytes(), *own) == "OK"
            try:
                return by_grpc, await asked_by_http(app, trusting(files, name)) == 200
            except (ssl.SSLError, ConnectionError):
                return by_grpc, False

        assert (await let_in("before"), await let_in("after")) == ((True, True), (False, False))
        authorities["after"].cert_pem.write_to_path(str(trusted))
        assert (await let_in("before"), await let_in("after")) == ((False, False), (True, True))


async def test_a_certificate_of_another_authority_is_none(files: Files) -> None:
    issued = trustme.CA().issue_cert("mailer.example.org")
    files.give("forged", issued)
    async with files.served(tls_client_ca=str(files.ca)) as app:
        own = files.key("forged").read_bytes(), files.cert("forged").read_bytes()
        assert await asked_by_grpc(app, files.ca.read_bytes(), *own) == "UNAVAILABLE"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asked_by_http(app, trusting(files, "forged"))


async def test_without_a_file_whoever_the_authority_has_signed_may_do_everything(files: Files) -> None:
    files.give("ann", files.authority.issue_cert("ann@example.org"))
    connect: Any = {"ca": files.ca, "cert": files.cert("ann"), "key": files.key("ann")}
    async with files.served(tls_client_ca=str(files.ca)) as app, AsyncClient(app.address, **connect) as client:
        await client.create("mail")
        assert (await client.pause_queue("default")).paused


@pytest.mark.parametrize(
    ("token", "refusal"), [("", Unauthenticated), ("jw_shop", PermissionDenied)], ids=["none", "of another role"]
)
async def test_a_worker_whose_token_will_not_do_ends(files: Files, token: str, refusal: type[JobwireError]) -> None:
    tokens = files.tokens(entry("shop", [Role.PRODUCER], "jw_shop"))
    async with files.served(tokens=tokens) as app:
        worker = Worker(app.address, ca=files.ca, token=token)
        worker.default_handler(lambda _: None)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(refusal):
                await worker.run()


async def test_client_and_worker_work_by_tls_and_token(files: Files) -> None:
    tokens = files.tokens(entry("shop", [Role.PRODUCER], "jw_shop") + entry("mailer", [Role.WORKER], "jw_mailer"))
    ended = asyncio.Event()
    async with (
        files.served(tokens=tokens) as app,
        AsyncClient(app.address, ca=files.ca, token="jw_shop") as shop,
    ):
        worker = Worker(app.address, ca=files.ca, token="jw_mailer", on_settled=lambda _: ended.set())

        @worker.handler("mail")
        async def mail(_: object) -> str:
            return "sent"

        working = asyncio.create_task(worker.run())
        async with asyncio.timeout(PATIENCE):
            job = await shop.create("mail")
            job = await shop.wait(job.id)
            await ended.wait()
        assert job.result is not None
        worker.stop()
        await working
        with pytest.raises(JobwireError) as refused:
            await shop.workers()
        assert refused.value.reason == "PERMISSION_DENIED"


def damage(files: Files, what: str) -> tuple[str, Iterable[Path]]:
    """Breaks something; answers what is said of it, and the files in question."""
    cert, key = files.cert("server"), files.key("server")
    match what:
        case "no certificate":
            cert.unlink()
            return f"{cert}: No such file or directory", ()
        case "a folder as key":
            key.unlink()
            key.mkdir()
            return f"{key}: Is a directory", ()
        case "key and certificate exchanged":
            return f"{key} holds no certificate in PEM", (key, cert)
        case "another key":
            key.write_bytes(files.authority.issue_cert("x").private_key_pem.bytes())
            return f"the key in {key} is not that of the certificate in {cert}", ()
        case "a damaged certificate":
            cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n")
            return f"{cert} and {key} cannot be used: ", ()
        case "an encrypted key":
            key.write_bytes(
                ec.generate_private_key(ec.SECP256R1()).private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
                )
            )
            return f"{key} is encrypted", ()
        case "no client authority":
            other = files.folder / "other.pem"
            other.write_text("hunter2")
            return f"{other} holds no certificate in PEM", (cert, key, other)
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    [
        "no certificate",
        "a folder as key",
        "key and certificate exchanged",
        "another key",
        "a damaged certificate",
        "an encrypted key",
        "no client authority",
    ],
)
def test_files_that_will_not_do_are_named_and_what_is_wrong_with_them(files: Files, what: str) -> None:
    says, paths = damage(files, what)
    cert, key, *ca = paths or (files.cert("server"), files.key("server"))
    with pytest.raises(BadFile) as refused:
        Certificates(cert, key, ca[0] if ca else None)
    assert str(refused.value).startswith(says)
    assert "hunter2" not in str(refused.value)
