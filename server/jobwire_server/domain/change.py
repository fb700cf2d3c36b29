"""What a caller may ask to change about one job (RPC `UpdateJob`), as values. `policy` decides what comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from jobwire_server.domain.job import JobError
from jobwire_server.domain.move import Completion, JobChanges


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Its worker could not do it. `permanent` = do not retry; `retry_delay` overrides the backoff once."""

    job_id: str
    token: bytes
    error: JobError
    permanent: bool = False
    retry_delay: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Its worker gives it back undone, to be offered again after `delay`."""

    job_id: str
    token: bytes
    delay: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Its worker is alive and perhaps further on; acknowledges and renews. Empty progress is a mere sign of life."""

    job_id: str
    token: bytes
    fraction: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A person changes what was asked for."""

    job_id: str
    changes: JobChanges
    """Every edited field but those inside the submission."""
    rewrite: Callable[[bytes], bytes] | None = None
    """The stored submission → the edited one; None when nothing inside it changes. It may run more than once."""
    payload: bool = False
    """The payload is among what `rewrite` changes."""
    etag: str | None = None


Change = Completion | Fail | Release | Report | Edit
"""A completion is asked for as it is applied: it needs no decision."""


TOKEN_SIZE: Final = 16


def new_tokens(number: int) -> list[bytes]:
    """Fresh lease tokens. One call of the system for all: each gives up the interpreter lock."""
    noise = os.urandom(TOKEN_SIZE * number)
    return [noise[at : at + TOKEN_SIZE] for at in range(0, len(noise), TOKEN_SIZE)]


def token_digest(token: bytes) -> bytes:
    """What the store keeps of a 16-byte lease token; the token itself is only ever given to its holder."""
    return sha256(token).digest()[:16]
