"""What TLS needs: our certificate and its key, and which certificates of clients to trust."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from jobwire_server.service.kept_file import BadFile, Kept, read_bytes


@dataclass(frozen=True, slots=True)
class Pems:
    """The files as they were when they fitted together."""

    cert: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext
    """Made of them: for HTTP."""


class Certificates:
    """Read anew when one of the files has changed; while they do not fit together, those from before are in force."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        """With `client_ca` whoever connects must show a certificate that it has signed. Raises BadFile."""
        paths = [path for path in (cert, key, client_ca) if path is not None]
        self._kept = Kept(paths, partial(_read, cert, key, client_ca), what="certificates")
        self.asks_clients = client_ca is not None

    @property
    def now(self) -> Pems:
        """For the next connection. Any thread may ask."""
        return self._kept.value

    def context(self) -> ssl.SSLContext:
        """For a listener that keeps it: each connection is given the certificates of its time."""
        context = self.now.context

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self.now.context

        context.sni_callback = renew
        return context


def _read(cert: Path, key: Path, client_ca: Path | None) -> Pems:
    def encrypted() -> NoReturn:
        raise BadFile(f"{key} is encrypted, and there is nobody to ask for its password")

    pems = Pems(
        _pem(cert, "CERTIFICATE"),
        _pem(key, "KEY", is_secret=True),
        None if client_ca is None else _pem(client_ca, "CERTIFICATE"),
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    )
    pems.context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        pems.context.load_cert_chain(cert, key, encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadFile(f"the key in {key} is not that of the certificate in {cert}") from error
        raise BadFile(f"{cert} and {key} cannot be used: {error.reason or 'damaged'}") from error
    except OSError as error:
        raise BadFile(f"{cert}, {key}: {error.strerror}") from error
    if client_ca is not None:
        try:
            pems.context.load_verify_locations(client_ca)
        except OSError as error:  # of ssl as well
            raise BadFile(f"{client_ca} cannot be used: {getattr(error, 'reason', '') or 'damaged'}") from error
        pems.context.verify_mode = ssl.CERT_REQUIRED
    return pems


def _pem(path: Path, holds: str, *, is_secret: bool = False) -> bytes:
    pem = read_bytes(path, is_secret=is_secret)
    if f"{holds}-----".encode() not in pem:
        raise BadFile(f"{path} holds no {holds.lower()} in PEM")
    return pem
