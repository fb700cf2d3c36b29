"""What `jobwire fsck` says of an examination: to people, and to programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from jobwire_server.progress import number_of, printable
from jobwire_server.store.examination import Broken, Examination, Inspection, Progress, Repair
from jobwire_server.store.invariants import Invariant

SHOWN: Final = 10
"""Findings of one invariant that people are shown."""

Found = Mapping[Invariant, Broken]


def repaired(
    inspection: Inspection, repair: Repair, examination: Examination, progress: Progress
) -> tuple[Examination, Found]:
    """The store as it is after what may be mended of these findings was, and which of them were. Raises as both do."""
    if repair.mends.isdisjoint(examination.broken):
        return examination, {}  # nothing is written where nothing can be mended
    repair.run(progress)
    after = inspection.run(progress)
    return after, _mended(examination.broken, after.broken)


def _mended(before: Found, after: Found) -> Found:
    mended: dict[Invariant, Broken] = {}
    for invariant, broken in before.items():
        left = after.get(invariant, Broken())
        first = {what: None for what in broken.first if what not in left.first}
        if number := max(len(first), broken.number - left.number):
            mended[invariant] = Broken(number, first)
    return mended


def as_text(url: str, examination: Examination, seconds: float, mended: Found | None = None) -> str:
    """`mended`: what was; None = nobody has asked for that."""
    return "\n".join(_lines(url, examination, seconds, mended))


def as_json(url: str, examination: Examination, seconds: float, mended: Found | None = None) -> str:
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
            "broken": _as_list(examination.broken),
            **({} if mended is None else {"mended": _as_list(mended)}),
        },
        indent=2,
    )


def _as_list(found: Found) -> list[dict[str, Any]]:
    return [
        {
            "invariant": invariant.name,
            "sentence": str(invariant),
            "count": broken.number,
            "findings": list(broken.first),
        }
        for invariant, broken in found.items()
    ]


def _lines(url: str, examination: Examination, seconds: float, mended: Found | None) -> Iterator[str]:
    seen = ", ".join(
        number_of(number, what)
        for number, what in (
            (examination.jobs, "job"),
            (examination.queues, "queue"),
            (examination.workers, "worker"),
        )
    )
    seen = f"{seen}, read in {seconds:.1f} s"
    if examination.broken:
        yield f"{url}: {number_of(len(examination.broken), 'invariant')} broken ({seen})"
    else:
        yield f"{url} is sound: {seen}"
    if mended is None:
        yield from _findings(examination.broken)
    else:
        yield from _findings(mended, " mended")
        yield from _findings(examination.broken, " left")
    if examination.broken:
        yield ""
        yield "docs/operations.md says of each what it means and what to do."


def _findings(found: Found, what_became: str = "") -> Iterator[str]:
    for invariant, broken in found.items():
        yield ""
        yield f"{invariant} ({invariant.name}, {broken.number:,}{what_became})"
        shown = list(broken.first)[:SHOWN]
        yield from (f"  {printable(what)}" for what in shown)
        if broken.number > len(shown):
            yield f"  and {broken.number - len(shown):,} more"
