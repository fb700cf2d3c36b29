"""What `jobwire fsck` says of an examination: to people, and to programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from jobwire_server.progress import number_of, printable
from jobwire_server.store.examination import Examination

SHOWN: Final = 10
"""Findings of one invariant that people are shown."""


def as_text(url: str, examination: Examination, seconds: float) -> str:
    return "\n".join(_lines(url, examination, seconds))


def as_json(url: str, examination: Examination, seconds: float) -> str:
    """One object; `findings` are the first of each invariant, `count` is how many there were."""
    return json.dumps(
        {
            "store": url,
            "sound": not examination.broken,
            "jobs": examination.jobs,
            "states": {str(state): number for state, number in sorted(examination.states.items())},
            "queues": examination.queues,
            "workers": examination.workers,
            "seconds": round(seconds, 3),
            "broken": [
                {
                    "invariant": invariant.name,
                    "sentence": str(invariant),
                    "count": broken.number,
                    "findings": list(broken.first),
                }
                for invariant, broken in examination.broken.items()
            ],
        },
        indent=2,
    )


def _lines(url: str, examination: Examination, seconds: float) -> Iterator[str]:
    seen = ", ".join(
        number_of(number, what)
        for number, what in (
            (examination.jobs, "job"),
            (examination.queues, "queue"),
            (examination.workers, "worker"),
        )
    )
    seen = f"{seen}, read in {seconds:.1f} s"
    if not examination.broken:
        yield f"{url} is sound: {seen}"
        return
    yield f"{url}: {number_of(len(examination.broken), 'invariant')} broken ({seen})"
    for invariant, broken in examination.broken.items():
        yield ""
        yield f"{invariant} ({invariant.name}, {broken.number:,})"
        shown = list(broken.first)[:SHOWN]
        yield from (f"  {printable(what)}" for what in shown)
        if broken.number > len(shown):
            yield f"  and {broken.number - len(shown):,} more"
    yield ""
    yield "docs/operations.md says of each what it means and what to do."
