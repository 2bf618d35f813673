"""Where the rows of a CSV file begin and end, found block by block without parsing them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newcomer.errors import DataError

BLOCK = 1 << 22
"""Bytes that are looked at together."""

NEWLINE, QUOTE = b"\n", b'"'


def cuts(file: Path, rows: int) -> tuple[list[int], int]:
    """Where the header ends, and where each so many rows end, the last ones too, as byte positions; and how many rows there are.

    One pass, and memory for one block and the positions. A newline in quotation marks ends no row; an empty line is a row,
    but for those before the header, as when the file is read whole. Raises DataError for a quotation mark that is never closed.
    """
    blank, marks, last, seen = _blank_lines(file), list[int](), 0, 0
    for ends in row_ends(file):
        ends = ends[ends > blank]
        if len(ends):
            marks += ends[-seen % rows :: rows].tolist()
            last, seen = int(ends[-1]), seen + len(ends)
    return (marks if marks[-1:] == [last] else [*marks, last]), seen - 1


def row_ends(file: Path) -> Iterator[NDArray[np.int64]]:
    """The positions just behind every row, the header's first, block by block."""
    place, end, quotes_before = 0, 0, 0
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            content = np.frombuffer(block, dtype=np.uint8)
            quotes, newlines = np.flatnonzero(content == ord(QUOTE)), np.flatnonzero(content == ord(NEWLINE))
            inside = (quotes_before + np.searchsorted(quotes, newlines)) % 2 == 1
            ends = place + 1 + newlines[~inside]
            yield ends
            place, quotes_before = place + len(block), quotes_before + len(quotes)
            end = int(ends[-1]) if len(ends) else end
    if quotes_before % 2:
        raise DataError(
            f"{file}: a quotation mark is never closed; close it, or write a quotation mark in a value twice"
        )
    if end < place:
        yield np.array([place])  # the last row has no newline


def lines_before(file: Path, place: int) -> int:
    """How many lines end before this byte, those in quotation marks counted."""
    with file.open("rb") as stream:
        sizes = (min(BLOCK, place - begin) for begin in range(0, place, BLOCK))
        return sum(stream.read(size).count(NEWLINE) for size in sizes)


def _blank_lines(file: Path) -> int:
    with file.open("rb") as stream:
        block = stream.read(BLOCK)
    return len(block) - len(block.lstrip(b"\r\n"))
