"""Who may call what: the one table from RPC to roles, and what a caller has to show."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.service.principals import Principal, Principals, Role

_PRODUCER: Final = frozenset({Role.PRODUCER, Role.ADMIN})
_WORKER: Final = frozenset({Role.WORKER, Role.ADMIN})
_ADMIN: Final = frozenset({Role.ADMIN})
_READS_JOBS: Final = frozenset({Role.PRODUCER, Role.VIEWER, Role.ADMIN})
_VIEWER: Final = frozenset({Role.VIEWER, Role.ADMIN})
_ALL: Final = frozenset(Role)

_NAMES: Final = "x509_subject_alternative_name"
"""Under which gRPC tells the names in a client's certificate."""

ROLES: Final[Mapping[str, frozenset[Role]]] = {
    "/jobwire.v1.JobService/CreateJob": _PRODUCER,
    "/jobwire.v1.JobService/BatchCreateJobs": _PRODUCER,
    "/jobwire.v1.JobService/GetJob": _ALL,
    "/jobwire.v1.JobService/BatchGetJobs": _ALL,
    "/jobwire.v1.JobService/ListJobs": _READS_JOBS,
    "/jobwire.v1.JobService/CountJobs": _READS_JOBS,
    "/jobwire.v1.JobService/UpdateJob": _PRODUCER | _WORKER,  # edits, and settlements, which need a lease's token
    "/jobwire.v1.JobService/BatchUpdateJobs": _PRODUCER | _WORKER,
    "/jobwire.v1.JobService/ClaimJob": _WORKER,
    "/jobwire.v1.JobService/RecoverStuckJobs": _ADMIN,
    "/jobwire.v1.JobService/CancelJob": _PRODUCER,
    "/jobwire.v1.JobService/RetryJob": _PRODUCER,
    "/jobwire.v1.JobService/DeleteJob": _PRODUCER,
    "/jobwire.v1.JobService/CancelJobs": _ADMIN,
    "/jobwire.v1.JobService/RetryJobs": _ADMIN,
    "/jobwire.v1.JobService/DeleteJobs": _ADMIN,
    "/jobwire.v1.JobService/WaitJob": _READS_JOBS,
    "/jobwire.v1.JobService/WatchJobs": _READS_JOBS,
    "/jobwire.v1.WorkerService/Heartbeat": _WORKER,
    "/jobwire.v1.WorkerService/ListWorkers": _VIEWER,
    "/jobwire.v1.WorkerService/DrainWorker": _ADMIN,
    "/jobwire.v1.QueueService/ListQueues": _VIEWER,
    "/jobwire.v1.QueueService/GetQueue": _VIEWER,
    "/jobwire.v1.QueueService/UpdateQueue": _ADMIN,
    "/jobwire.v1.QueueService/PurgeQueue": _ADMIN,
    "/jobwire.v1.AdminService/GetStats": _VIEWER,
    "/jobwire.v1.AdminService/WatchStats": _VIEWER,
    "/jobwire.v1.AdminService/GetServerInfo": _ALL,
    "/jobwire.v1.AdminService/Backup": _ADMIN,
    "/metrics": _VIEWER,
}
"""What is missing here is nobody's."""


class Shown(Protocol):
    """What a caller shows of itself, as gRPC's contexts have it."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


class Access:
    """Knows callers by what they show, and lets them do what their roles include."""

    def __init__(self, principals: Principals | None) -> None:
        """None: the certificates of clients are all there is, and whoever has one may do everything."""
        self._principals = principals

    def known(self, caller: Shown) -> Principal:
        """Who calls. UNAUTHENTICATED."""
        if self._principals is not None and (token := _token(caller)):
            principal, wrong = self._principals.by_token(token), "the token is not one that this server knows"
        elif names := [name.decode(errors="replace") for name in caller.auth_context().get(_NAMES, ())]:
            principal, wrong = self._by_certificate(names), "the certificate is nobody's that this server knows"
        else:
            principal, wrong = None, "this server asks for a token"
        if principal is None:
            raise JobwireError(Reason.UNAUTHENTICATED, wrong)
        return principal

    def _by_certificate(self, names: Sequence[str]) -> Principal | None:
        if self._principals is None:
            return Principal(names[0], _ALL)
        return self._principals.by_certificate(names)

    def admit(self, path: str, caller: Shown) -> Principal:
        """The same, if that one may do this. PERMISSION_DENIED."""
        principal = self.known(caller)
        allowed = ROLES.get(path, frozenset())
        if not principal.roles & allowed:
            raise JobwireError(
                Reason.PERMISSION_DENIED,
                f"{principal.name} is {_listed(principal.roles)}, and {path.rpartition('/')[2]} is for"
                f" {_listed(allowed) or 'nobody'}",
                metadata={"principal": principal.name},
            )
        return principal


def _token(caller: Shown) -> str:
    """Of `Authorization: Bearer …`, or, where a browser has asked for it, the password of `Basic …`; else empty."""
    for key, value in caller.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, shown = value.partition(" ")
            if scheme.lower() == "bearer":
                return shown.strip()
            if scheme.lower() == "basic":
                try:
                    return base64.b64decode(shown, validate=True).decode().partition(":")[2]
                except (binascii.Error, UnicodeDecodeError):
                    return ""
    return ""


def _listed(roles: Iterable[Role]) -> str:
    return ", ".join(role for role in Role if role in roles)
