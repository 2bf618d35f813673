"""Row boundaries of text files: of CSV found block by block without parsing, of JSON lines line by line."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from newcomer.data.io.formats import open_content
from newcomer.data.io.json_lines import json_object
from newcomer.data.io.remote import LogFile
from newcomer.errors import DataError

BLOCK = 1 << 22
"""Bytes per block."""

NEWLINE, QUOTE = b"\n", b'"'


def chunk_offsets(file: LogFile, rows: int) -> tuple[list[int], int]:
    """Byte offsets of the end of the header and of every `rows`-th row (and of the last), and the number of rows.

    One pass in the memory of one block. A newline in quotes does not end a row; an empty line is a row, except before the header,
    as when the file is read whole. Raises DataError for an unterminated quote.
    """
    blank, offsets, last, count = _blank_lines(file), list[int](), 0, 0
    for ends in row_ends(file):
        ends = ends[ends > blank]
        if len(ends):
            offsets += ends[-count % rows :: rows].tolist()
            last, count = int(ends[-1]), count + len(ends)
    return (offsets if offsets[-1:] == [last] else [*offsets, last]), count - 1


def row_ends(file: LogFile) -> Iterator[NDArray[np.int64]]:
    """Byte offsets after every row, the header first, block by block."""
    offset, end, quotes_before = 0, 0, 0
    with open_content(file) as stream:
        while block := stream.read(BLOCK):
            content = np.frombuffer(block, dtype=np.uint8)
            quotes, newlines = np.flatnonzero(content == ord(QUOTE)), np.flatnonzero(content == ord(NEWLINE))
            inside = (quotes_before + np.searchsorted(quotes, newlines)) % 2 == 1
            ends = offset + 1 + newlines[~inside]
            yield ends
            offset, quotes_before = offset + len(block), quotes_before + len(quotes)
            end = int(ends[-1]) if len(ends) else end
    if quotes_before % 2:
        raise DataError(
            f"{file}: a quotation mark is never closed; close it, or write a quotation mark in a value twice"
        )
    if end < offset:
        yield np.array([offset])  # the last row has no newline


def json_chunk_offsets(file: LogFile, rows: int) -> tuple[list[str], list[int], int]:
    """Names of the keys, byte offsets of the beginning and of every `rows`-th row (and of the end), and the number of rows.

    Parses every line, because any may have keys that the others lack. Blank lines are no rows.
    """
    names, offsets, end, count = dict[str, None](), [0], 0, 0
    with open_content(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                if count and count % rows == 0:
                    offsets.append(end)
                names |= dict.fromkeys(json_object(decoded_line(line, number, file), f"{file}: line {number}"))
                count += 1
            end += len(line)
    return list(names), [*offsets, end] if count else [end], count


def decoded_line(line: bytes, number: int, file: LogFile) -> str:
    """Text of a line. Raises DataError if it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise DataError(f"{file}: line {number} is not UTF-8; save the file as UTF-8") from None


def lines_before(file: LogFile, offset: int) -> int:
    """Number of lines that end before this byte, including those in quotes."""
    with open_content(file) as stream:
        sizes = (min(BLOCK, offset - begin) for begin in range(0, offset, BLOCK))
        return sum(stream.read(size).count(NEWLINE) for size in sizes)


def _blank_lines(file: LogFile) -> int:
    with open_content(file) as stream:
        block = stream.read(BLOCK)
    return len(block) - len(block.lstrip(b"\r\n"))
