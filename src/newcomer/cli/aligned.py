"""What `newcomer inspect` prints: aligned pairs of a term and its value, tables, settings."""

from collections.abc import Mapping, Sequence

from rich.table import Table as RichTable

from newcomer.cli.program import console, shorten
from newcomer.settings import Json


def print_pairs(pairs: Mapping[str, str]) -> None:
    """One line a term, values aligned."""
    table = RichTable.grid("term", "value", padding=(0, 2, 0, 0))
    for term, value in pairs.items():
        table.add_row(term, value)
    console.print(table)


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; numbers are right-aligned with separators, None is a dash."""
    table = RichTable()
    for number, name in enumerate(head):
        numeric = any(isinstance(row[number], int) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*("–" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    console.print(table)


def settings_line(settings: Mapping[str, Json]) -> str:
    """Settings as `--set` takes them.

    >>> settings_line({"rank": 4, "drift_map": True, "device": None})
    'rank=4, drift_map=true, device unset'
    """
    return ", ".join(f"{key} unset" if value is None else f"{key}={_value(value)}" for key, value in settings.items())


def _value(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else shorten(value)
