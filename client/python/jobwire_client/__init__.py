"""The Python client of jobwire: `AsyncClient` and `Client` for producers, `Worker` for those who do the work.

What is not here is reached through `AsyncClient.stubs`, the generated and typed stubs of the whole contract.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jobwire_client._public import *  # noqa: F403  the list of names stands there

_PUBLIC: Final = "jobwire_client._public"


def __getattr__(name: str) -> Any:
    """Loads what the package offers when the first of it is asked for: `jobwire --help` needs none of it, nor gRPC."""
    if name == "__all__" or not name.startswith("_"):
        public = import_module(_PUBLIC)
        if name == "__all__" or name in public.__all__:
            return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module(_PUBLIC).__all__})
