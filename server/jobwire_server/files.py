"""The files that settings name: read before anything starts, and before processes fork. Imports no gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobwire_server.config import Config, ConfigError
from jobwire_server.service.certificates import Certificates
from jobwire_server.service.kept_file import BadFile
from jobwire_server.service.principals import Principals
from jobwire_server.service.signing import Secrets


@dataclass(frozen=True, slots=True)
class Files:
    """Each is read anew when it changes; None where there is none."""

    secrets: Secrets
    principals: Principals | None
    certificates: Certificates | None


def read_files(config: Config) -> Files:
    """Raises ConfigError, which names the setting."""
    with _naming("--webhook-secrets"):
        secrets = Secrets(Path(config.webhook_secrets) if config.webhook_secrets else None)
    with _naming("--tokens"):
        principals = Principals(Path(config.tokens)) if config.tokens else None
    with _naming("--tls-cert, --tls-key, --tls-client-ca"):
        certificates = (
            Certificates(
                Path(config.tls_cert),
                Path(config.tls_key),
                Path(config.tls_client_ca) if config.tls_client_ca else None,
            )
            if config.tls_cert
            else None
        )
    return Files(secrets, principals, certificates)


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    try:
        yield
    except BadFile as error:
        raise ConfigError(f"{setting}: {error}") from error
