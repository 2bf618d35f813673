"""How the command line shows what a classifier says: a JSON object a line, or a table in parts, as the answers come."""

import sys
from collections.abc import Iterable

from rich.table import Table as RichTable

from newcomer.classes.predictions import Answer
from newcomer.cli.program import console
from newcomer.printable import printable, printable_json
from newcomer.settings import Json

ROWS = 500
"""Rows of a table that are printed at once: columns are as wide as these need."""

Said = tuple[str, Answer | str]
"""What an input is called, and its answer or what is wrong with it."""


def print_json(said: Iterable[Said], judged: bool) -> None:
    """One line an input, written when it is known; `judged`: with whether it belongs to a known class."""
    for name, answer in said:
        print(
            printable_json(
                {"input": name, "error": answer} if isinstance(answer, str) else _as_json(name, answer, judged)
            )
        )
        sys.stdout.flush()


def print_tables(said: Iterable[Said]) -> None:
    """Tables of so many rows; what has no answer is not in them."""
    rows: list[tuple[str, ...]] = []
    for name, answer in said:
        if isinstance(answer, Answer):
            rows.append(_as_row(name, answer))
        if len(rows) == ROWS:
            _print_table(rows)
            rows.clear()
    if rows:
        _print_table(rows)


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    table = RichTable("input", "class", "probability", "then")
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)


def _as_row(name: str, answer: Answer) -> tuple[str, ...]:
    first, *others = zip(answer.classes, answer.probabilities, strict=True)
    klass = first[0] if answer.known else f"none known (nearest: {first[0]})"
    then = ", ".join(f"{name} {share:.2f}" for name, share in others)
    return (name if len(name) <= 60 else "…" + name[-59:], klass, f"{first[1]:.2f}", then)


def _as_json(name: str, answer: Answer, judged: bool) -> dict[str, Json]:
    best = [
        {"class": klass, "probability": share}
        for klass, share in zip(answer.classes, answer.probabilities, strict=True)
    ]
    return {"input": name, "classes": best} | ({"known": answer.known} if judged else {})
