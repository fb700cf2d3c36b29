"""Signatures of webhooks, as standardwebhooks.com has them, and the secrets that make them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = range(24, 65)

log = logging.getLogger("jobwire.webhooks")


class BadSecrets(Exception):
    """The file of secrets cannot be used. The message never holds any of it."""


class Secrets:
    """Signing keys by name, from a TOML file of `name = "whsec_…"`, or of lists of them while one follows another.

    The file is read anew when it has changed; one that cannot be used leaves what was read before in force.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises BadSecrets."""
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._keys: Mapping[str, Sequence[bytes]] = {}
        if path is not None:
            self._seen, self._keys = _stamp(path), _read(path)

    def keys(self, name: str) -> Sequence[bytes]:
        """The first is the newest; none = there is no such secret."""
        if self._path is not None:
            try:
                if (stamp := _stamp(self._path)) != self._seen:
                    self._seen, self._keys = stamp, _read(self._path)
                    log.info("the signing secrets were read anew")
            except BadSecrets as error:
                log.error("the signing secrets stay as they were: %s", error)
        return self._keys.get(name, ())


def signed(message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> list[tuple[str, str]]:
    """The headers by which a receiver knows a message, its time in seconds and, where there are keys, its sender."""
    headers = [("webhook-id", message_id), ("webhook-timestamp", str(timestamp))]
    if keys:
        content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
        headers.append(("webhook-signature", " ".join(f"v1,{base64.b64encode(each).decode()}" for each in digests)))
    return headers


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise BadSecrets(f"{path}: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size


def _read(path: Path) -> dict[str, list[bytes]]:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("%s can be read by others than its owner: chmod 600", path)
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSecrets(f"{path}: {error.strerror}") from error
    except ValueError:  # a TOML error quotes the line, and that may be a secret
        raise BadSecrets(f"{path} is no TOML file") from None
    listed = {name: each if isinstance(each, list) else [each] for name, each in said.items()}
    return {name: [_key(path, name, each) for each in several] for name, several in listed.items()}


def _key(path: Path, name: str, said: object) -> bytes:
    if isinstance(said, str) and said.startswith(_PREFIX):
        try:
            key = base64.b64decode(said.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if len(key) in _KEY_BYTES:
            return key
    raise BadSecrets(f"{path}: {name} must be {_PREFIX} and 24 to 64 bytes as base64, or a list of such texts")
