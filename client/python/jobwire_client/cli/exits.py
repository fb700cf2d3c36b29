"""How the command ends: one exit code per kind of end, and for each refusal what to do next."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobwire_client.errors import JobwireError


class Exit(IntEnum):
    """The process's exit code. Its `meaning` is what `jobwire --help` and docs/command.md say."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done; of a wait: the job is COMPLETED"
    FAILED = (
        1,
        "refused, or the job is FAILED; fsck: something is broken; migrate, backup, restore: not all has arrived",
    )
    USAGE = 2, "an option, a setting or a value that cannot be"
    UNREACHABLE = 3, "no answer from the server or its store; the call may have taken effect"
    NOT_FOUND = 4, "there is no such job, queue or worker"
    CONFLICT = 5, "the job's state does not allow it, its id is taken, or it changed meanwhile"
    CANCELED = 6, "of a wait: the job is CANCELED"
    EXPIRED = 7, "of a wait: the job is EXPIRED"
    NOT_ENDED = 8, "of a wait: --wait-timeout passed before the job ended"
    INTERRUPTED = 130, "Ctrl-C"


_BY_REASON: Final = {
    "INVALID_FIELD": Exit.USAGE,
    "INVALID_MESSAGE": Exit.USAGE,
    "TOO_LARGE": Exit.USAGE,
    "REQUEST_ID_REUSED": Exit.CONFLICT,
    "JOB_EXISTS": Exit.CONFLICT,
    "ILLEGAL_TRANSITION": Exit.CONFLICT,
    "ETAG_MISMATCH": Exit.CONFLICT,
    "CONTENDED": Exit.CONFLICT,
    "JOB_NOT_FOUND": Exit.NOT_FOUND,
    "QUEUE_NOT_FOUND": Exit.NOT_FOUND,
    "WORKER_NOT_FOUND": Exit.NOT_FOUND,
}
_BY_CODE: Final = {
    "UNAVAILABLE": Exit.UNREACHABLE,
    "DEADLINE_EXCEEDED": Exit.UNREACHABLE,
    "INVALID_ARGUMENT": Exit.USAGE,
    "NOT_FOUND": Exit.NOT_FOUND,
}

_NEXT: Final = {
    "JOB_NOT_FOUND": "It never was, was deleted, or its retention is over. `jobwire list` shows what there is.",
    "QUEUE_NOT_FOUND": "A queue comes into being with its first job. `jobwire queues` lists those there are.",
    "WORKER_NOT_FOUND": "It never was, or was not heard of for an hour. `jobwire workers` lists those there are.",
    "JOB_EXISTS": "Look at it with `jobwire get`, or leave --id out for a new one.",
    "REQUEST_ID_REUSED": "Use another --request-id: this one was sent with another job in the last 24 h.",
    "ILLEGAL_TRANSITION": "`jobwire why {job_id}` tells what the job does now.",
    "ETAG_MISMATCH": "Look at it again with `jobwire get`, then repeat with its new etag.",
    "CONTENDED": "Others change the same job: repeat it.",
    "STORE_FULL": "Delete ended jobs (`jobwire delete --state completed`), or give the store room.",
    "TOO_LARGE": "Put large content somewhere else and its place into the payload.",
    "STORE_UNAVAILABLE": "The server is there, its store is not: see the server's log, then repeat.",
    "SERVER_DRAINING": "The server is going away: repeat in a moment.",
    "UNAUTHENTICATED": "Name a file with your token by --token-file; `jobwire token new` makes one.",
    "PERMISSION_DENIED": "Its operator gives roles to tokens: docs/operations.md.",
    "NOT_BUILT": "This server cannot do that yet.",
    "UNAVAILABLE": "Is it running there? Start one with `jobwire serve`, or name another with --address.",
    "DEADLINE_EXCEEDED": "Give it longer with --timeout SECONDS.",
}


def of_error(error: JobwireError) -> Exit:
    """The exit code for a call that was refused."""
    return _BY_REASON.get(error.reason) or _BY_CODE.get(error.code.name) or Exit.FAILED


def sentence(error: JobwireError, address: str) -> str:
    """What went wrong in the server's words, and what to do next."""
    said = error.message
    if error.reason == "UNAVAILABLE":
        said = f"cannot reach {address}"
    elif error.reason == "DEADLINE_EXCEEDED":
        said = f"no answer from {address} in time"
    if _BY_REASON.get(error.reason) is Exit.USAGE and error.fields:
        said = "; ".join(f"{field}: {wrong.removeprefix(field + ': ')}" for field, wrong in error.fields.items())
    lines = [f"jobwire: {said}"]
    if next_step := _NEXT.get(error.reason):
        lines.append("  " + next_step.replace("{job_id}", error.metadata.get("job_id", "ID")))
    return "\n".join(lines)


def of_state(state: str) -> Exit:
    """How an ended job's state is told by `wait` and `create --wait`."""
    return {"COMPLETED": Exit.OK, "FAILED": Exit.FAILED, "CANCELED": Exit.CANCELED, "EXPIRED": Exit.EXPIRED}[state]
