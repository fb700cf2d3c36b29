"""The part of a page that a command writes."""

from __future__ import annotations

from pathlib import Path


def begin(command: str) -> str:
    return f"<!-- begin: {command} -->"


def end(command: str) -> str:
    return f"<!-- end: {command} -->"


def put(page: Path, command: str, text: str) -> None:
    """Between the markers of that command."""
    before, _, rest = page.read_text().partition(begin(command))
    _, found, after = rest.partition(end(command))
    if not found:
        raise SystemExit(f"{page.name} has no place for the figures: {begin(command)} … {end(command)}")
    page.write_text(f"{before}{begin(command)}\n{text}\n{end(command)}{after}")
