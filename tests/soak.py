"""The long runs: servers, engines and workers are killed, and tapes played, again and again, each time by other dice.

`make soak MINUTES=60`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from typing import Final

import click

PARTS: Final = {
    "faults": (["tests/faults"], {"JOBWIRE_FAULT_ROUNDS": "5"}),
    "tapes": (["tests/store/test_model.py"], {"HYPOTHESIS_PROFILE": "thorough"}),
}
"""What is run in turns, and with what in its environment."""


@click.command()
@click.option("--minutes", type=click.FloatRange(0), default=60, help="A part that has begun by then is finished.")
def main(minutes: float) -> None:
    """Ends with the first failure, and shows it with what plays it again: exit code 1. 0 when the time is up."""
    end = time.monotonic() + minutes * 60
    turn = 0
    while time.monotonic() < end:
        turn += 1
        for name, (tests, settings) in PARTS.items():
            given = settings | {"JOBWIRE_TEST_SEED": str(random.randrange(1 << 32))}
            began = time.monotonic()
            click.echo(f"turn {turn}, {name}, {max(0, end - began) / 60:.0f} minutes left: ", nl=False)
            if said := _failure(tests, given):
                again = " ".join(f"{name}={value}" for name, value in given.items())
                click.echo(f"failed\n{said}\nagain: {again} make test ARGS='-x {' '.join(tests)}'")
                sys.exit(1)
            click.echo(f"passed in {(time.monotonic() - began) / 60:.1f} minutes")


def _failure(tests: list[str], settings: dict[str, str]) -> str:
    """What pytest says; nothing when all have passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--numprocesses", "2", *tests]
    ran = subprocess.run(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return ran.stdout.decode(errors="replace") if ran.returncode else ""


if __name__ == "__main__":
    main()
