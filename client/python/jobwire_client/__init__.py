"""The Python client of jobwire: `AsyncClient` and `Client` for producers, `Worker` for those who do the work.

What is not here is reached through `AsyncClient.stubs`, the generated and typed stubs of the whole contract.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a checker that saw __getattr__ would accept any name
    from jobwire_client._public import *  # noqa: F403  the list of names stands there
    from jobwire_client._public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """Loads what the package offers when the first of it is asked for: `jobwire --help` needs no gRPC."""
        if name == "__all__" or not name.startswith("_"):
            public = import_module("jobwire_client._public")
            if name == "__all__" or name in public.__all__:
                return getattr(public, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("jobwire_client._public").__all__})
