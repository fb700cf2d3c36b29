"""The `jobwire` command, also as `python -m jobwire_client`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command; what it needs beyond the client's library comes with the extra `cli`."""
    try:
        from jobwire_client.cli import main as command
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit(
            "jobwire: the command is an extra of its own: pip install 'jobwire[cli]'; to serve, 'jobwire[server,cli]'"
        )
    command(prog_name="jobwire")


if __name__ == "__main__":
    main()
