"""Many rows in one statement.

A statement has a price of its own, beside that of its rows: bindings, a reset, the interpreter lock given up and won
back. (Measured in one thread: 4.3 µs to lease a job by fifty to a statement, 6.2 by `executemany`. Where another thread
is at work, as in a sweep, it is more.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any, Final

import apsw

ROWS: Final = 50
"""Rows in one statement; more bring no more, and SQLite has to compile them all."""

Row = tuple[Any, ...]


def given(connection: apsw.Connection, statement: str, rows: Sequence[Row], *shared: Any) -> list[Any]:
    """Runs the statement for all rows, and answers the rows it returns.

    `{values}` in it stands for `VALUES (?, …), …`: the rows in the order given; `shared` is bound before, as ?1 and so
    on. A lone row has a text of its own; in all others there are ROWS of them, and those that are missing are NULL
    throughout: the statement must do nothing for these.
    """
    if not rows:
        return []
    size, width = (1 if len(rows) == 1 else ROWS), len(rows[0])
    text = _filled(statement, width, size, len(shared) + 1)
    answers: list[Any] = []
    for first in range(0, len(rows), size):
        bindings = [*shared, *chain.from_iterable(rows[first : first + size])]
        bindings += [None] * (len(shared) + size * width - len(bindings))
        answers += connection.execute(text, bindings).fetchall()
    return answers


def insert(connection: apsw.Connection, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Inserts all rows."""
    into = f"INSERT INTO {table} ({', '.join(columns)}) "
    whole = len(rows) - len(rows) % ROWS
    for first in range(0, whole, ROWS):
        bindings = [*chain.from_iterable(rows[first : first + ROWS])]
        connection.execute(into + values(len(columns), ROWS), bindings)
    if whole < len(rows):
        connection.executemany(into + values(len(columns), 1), rows[whole:])


@lru_cache(maxsize=256)
def _filled(statement: str, width: int, rows: int, first: int) -> str:
    return statement.replace("{values}", values(width, rows, first))


@cache
def values(width: int, rows: int, first: int = 1) -> str:
    """Placeholders for so many rows, the first of them numbered `first`."""
    numbers = iter(range(first, first + width * rows))
    return "VALUES " + ", ".join(f"({', '.join(f'?{next(numbers)}' for _ in range(width))})" for _ in range(rows))
