"""Signatures of webhooks, as standardwebhooks.com has them, and the secrets that make them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from jobwire_server.service.kept_file import BadFile, Kept, read_toml

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = range(24, 65)


class Secrets:
    """Signing keys by name, from a TOML file of `name = "whsec_…"`, or of lists of them while one follows another."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises BadFile."""
        self._kept = None if path is None else Kept([path], partial(_read, path), what="signing secrets")

    def keys(self, name: str) -> Sequence[bytes]:
        """The first is the newest; none = there is no such secret."""
        return () if self._kept is None else self._kept.value.get(name, ())


def signed(message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> list[tuple[str, str]]:
    """The headers by which a receiver knows a message, its time in seconds and, where there are keys, its sender."""
    headers = [("webhook-id", message_id), ("webhook-timestamp", str(timestamp))]
    if keys:
        content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
        headers.append(("webhook-signature", " ".join(f"v1,{base64.b64encode(each).decode()}" for each in digests)))
    return headers


def _read(path: Path) -> dict[str, list[bytes]]:
    listed = {name: each if isinstance(each, list) else [each] for name, each in read_toml(path).items()}
    return {name: [_key(path, name, each) for each in several] for name, several in listed.items()}


def _key(path: Path, name: str, said: object) -> bytes:
    if isinstance(said, str) and said.startswith(_PREFIX):
        try:
            key = base64.b64decode(said.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if len(key) in _KEY_BYTES:
            return key
    raise BadFile(f"{path}: {name} must be {_PREFIX} and 24 to 64 bytes as base64, or a list of such texts")
