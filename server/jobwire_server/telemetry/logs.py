"""The log: lines for people, or a JSON object a line for programs. Whatever a caller made up stays within its line."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

FORMATS: Final = ("console", "json")

principal_name: Final[ContextVar[str]] = ContextVar("principal_name", default="")
"""Of who makes the call that is under way; empty where nobody has to say who he is, and outside of calls."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(level: str, *, log_format: str, several: bool = False) -> None:
    """Sends the log to standard error. `several` processes write it: each line says which.

    Before the first gRPC object: configuring logging later can deadlock with gRPC's own threads (grpc 43421).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(several=several) if log_format == "json" else _Console(several=several))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def fields(**values: object) -> Mapping[str, object]:
    """For `extra`: what a program wants to search by, beside the message that says the same to people; and who makes
    the call, which the log adds to the message."""
    name = principal_name.get()
    return {"fields": {**values, "principal": name} if name else values}


class _Console(logging.Formatter):
    def __init__(self, *, several: bool) -> None:
        super().__init__(f"%(asctime)s{' %(process)d' if several else ''} %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        principal = getattr(record, "fields", {}).get("principal")
        return _on_one_line(super().formatMessage(record) + (f" (by {principal})" if principal else ""))

    def formatException(self, ei: Any) -> str:
        # The text of an exception may hold anything; the bar keeps what follows a line break in it from passing for a
        # line of ours.
        return "\n".join(f"  | {_on_one_line(line)}" for line in super().formatException(ei).splitlines())


class _Json(logging.Formatter):
    def __init__(self, *, several: bool) -> None:
        super().__init__()
        self._several = several

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._several:
            line["process"] = record.process
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _on_one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
