"""JSON lines: one object per line, each value read by itself."""

import json
from collections.abc import Iterable
from typing import Any

import polars as pl

from newcomer.data.io.frames import frame_from_rows
from newcomer.errors import DataError


def frame_from_jsonl(lines: Iterable[str], where: str, before: int = 0) -> pl.DataFrame:
    """Frame of JSON objects, one per line; missing keys are null, blank lines are skipped.

    A column of mixed types becomes text, each value converted on its own.

    >>> frame_from_jsonl(['{"film": "Alien", "price": 2}', '{"film": "Brazil"}'], "table").rows()
    [('Alien', 2), ('Brazil', None)]

    Raises DataError for a line that is not a JSON object; lines are counted from `before`.
    """
    rows = []
    for number, line in enumerate(lines, before + 1):
        if line.strip():
            rows.append(json_object(line, f"{where}: line {number}"))
    return frame_from_rows(rows, where)


def json_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object in this line. Raises DataError for anything else, and for a key that occurs twice."""
    try:
        row = json.loads(line.removeprefix("\ufeff"), object_pairs_hook=_unique_keys)
        if "\\ud" in line.lower():  # an unpaired surrogate is no character
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except DataError as error:
        raise DataError(f"{where} {error}") from None
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f'{where} is not a JSON object; write one per line, in UTF-8, such as {{"item": "i7"}}')
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise DataError(f"has the key '{name}' twice; write it once")
    return found
