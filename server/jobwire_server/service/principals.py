"""Who may call, and as what: principals, their roles, and what shows that a caller is one of them."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

from jobwire_server.service.kept_file import BadFile, Kept, read_toml

_PREFIX: Final = "jw_"
"""By which people, and those who look for secrets in what is published, know a token."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Needs no quotes in TOML."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_KEYS: Final = frozenset({"roles", "sha256", "certificate"})


class Role(StrEnum):
    """What a principal is there for. `rpc/access.py` says what each may do."""

    PRODUCER = "producer"
    WORKER = "worker"
    VIEWER = "viewer"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody, or a program, whom we know."""

    name: str
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class _Known:
    by_digest: Mapping[str, Principal]
    by_certificate: Mapping[str, Principal]


class Principals:
    """From a TOML file with a table for each: `roles`, and `sha256` of its token, or `certificate`, or both."""

    def __init__(self, path: Path) -> None:
        """Raises BadFile."""
        self._kept = Kept([path], partial(_read, path), what="principals")

    def by_token(self, token: str) -> Principal | None:
        """Takes as long for a wrong token as for a right one, 0.2 µs for each token that there is."""
        shown, found = token_digest(token), None
        for digest, principal in self._kept.value.by_digest.items():
            if hmac.compare_digest(digest, shown):
                found = principal
        return found

    def by_certificate(self, names: Iterable[str]) -> Principal | None:
        """The first of a certificate's alternative names that is somebody's."""
        known = self._kept.value.by_certificate
        return next((known[name] for name in names if name in known), None)


def new_token() -> str:
    """256 random bits, so that a plain digest is enough to keep: nobody can try them all."""
    return _PREFIX + secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """As it stands in the file."""
    return hashlib.sha256(token.encode()).hexdigest()


def entry(name: str, roles: Iterable[Role], token: str) -> str:
    """The lines of the file for a principal. ValueError for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name: letters, digits, - and _, at most 64")
    told = ", ".join(f'"{role}"' for role in roles)
    return f'[{name}]\nroles = [{told}]\nsha256 = "{token_digest(token)}"\n'


def _read(path: Path) -> _Known:
    digests: dict[str, Principal] = {}
    certificates: dict[str, Principal] = {}
    for name, said in read_toml(path, is_secret=False).items():
        # Never what is said: who mistakes the file may write the token itself into it.
        if not _NAME.fullmatch(name) or not isinstance(said, dict) or not said.keys() <= _KEYS:
            raise BadFile(
                f"{path}: expected tables with a name of letters, digits, - and _, of {', '.join(sorted(_KEYS))}"
            )
        principal = Principal(name, _roles(path, name, said.get("roles")))
        for key, known in (("sha256", digests), ("certificate", certificates)):
            for each in _texts(path, name, key, said.get(key, [])):
                if known.setdefault(each, principal) is not principal:
                    raise BadFile(f"{path}: {known[each].name} and {name} have the same {key}")
        if "sha256" not in said and "certificate" not in said:
            raise BadFile(f"{path}: {name} has neither sha256 nor certificate")
    if not digests and not certificates:
        raise BadFile(f"{path} names nobody")
    return _Known(digests, certificates)


def _roles(path: Path, name: str, said: object) -> frozenset[Role]:
    try:
        if isinstance(said, list) and said:
            return frozenset(Role(each) for each in said)
    except ValueError:
        pass
    raise BadFile(f"{path}: roles of {name} must be a list of some of {', '.join(Role)}")


def _texts(path: Path, name: str, key: str, said: Any) -> list[str]:
    """One text, or several of them while one follows another."""
    texts = said if isinstance(said, list) else [said]
    if not all(isinstance(each, str) and each for each in texts):
        raise BadFile(f"{path}: {key} of {name} must be a text, or a list of texts")
    if key == "sha256" and not all(_DIGEST.fullmatch(each) for each in texts):
        raise BadFile(f"{path}: sha256 of {name} must be 64 hexadecimal digits, as `jobwire token new` prints them")
    return texts
