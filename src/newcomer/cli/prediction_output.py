"""Print a classifier's predictions, streamed: JSON lines, or tables."""

import sys
from collections.abc import Iterable

from rich.table import Table as RichTable

from newcomer.classes.predictions import Prediction
from newcomer.cli.program import console
from newcomer.printable import printable, printable_json
from newcomer.settings import Json

ROWS = 500
"""Rows per printed table; columns fit the widest cell."""

Answer = tuple[str, Prediction | str]
"""Name of an input, and its prediction or error message."""


def print_json(answers: Iterable[Answer], judged: bool) -> None:
    """One JSON line per input, flushed at once; `judged`: with `known`, whether it passed rejection."""
    for name, answer in answers:
        print(
            printable_json(
                {"input": name, "error": answer} if isinstance(answer, str) else _as_json(name, answer, judged)
            )
        )
        sys.stdout.flush()


def print_tables(answers: Iterable[Answer]) -> None:
    """Tables of `ROWS` rows; inputs with errors are omitted."""
    rows: list[tuple[str, ...]] = []
    for name, answer in answers:
        if isinstance(answer, Prediction):
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


def _as_row(name: str, answer: Prediction) -> tuple[str, ...]:
    first, *others = zip(answer.classes, answer.probabilities, strict=True)
    target = first[0] if answer.known else f"none known (nearest: {first[0]})"
    then = ", ".join(f"{name} {share:.2f}" for name, share in others)
    return (name if len(name) <= 60 else "…" + name[-59:], target, f"{first[1]:.2f}", then)


def _as_json(name: str, answer: Prediction, judged: bool) -> dict[str, Json]:
    best = [
        {"class": target, "probability": share}
        for target, share in zip(answer.classes, answer.probabilities, strict=True)
    ]
    return {"input": name, "classes": best} | ({"known": answer.known} if judged else {})
