"""Texts to classify: given as arguments, in text files, tables and on standard input."""

import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from newcomer.data.inputs import Query
from newcomer.data.io.tables import read_table, require_columns
from newcomer.data.paths import path_exists
from newcomer.errors import DataError, nearest

TABLES = {".csv", ".parquet", ".pq"}
LINES = {".txt", ".text"}
JSON_LINES = {".jsonl", ".ndjson"}

FORMATS = ".txt (one text per line), .jsonl, .csv or .parquet"

STDIN_ADVICE = "to classify it as a text, use standard input: -"

SUFFIX = (
    r"[.](txt|text|rtf|tex|rst|md|org|log|eml|msg|docx?|dotx?|odt|pages|pdf|epub|html?|xml|svg|json|jsonl|ndjson|ya?ml|toml|ini|cfg|conf"
    r"|csv|tsv|dat|parquet|pq|feather|arrow|orc|avro|xlsx?|xlsm|ods|numbers|sqlite3?|db|h5|npy|npz|pptx?|odp|key|gz|bz2|xz|zst|zip|rar|7z|tar|tgz"
    r"|png|jpe?g|gif|bmp|webp|tiff?|heic|heif|avif|ico|mp3|mp4|m4a|wav|avi|mov|mkv|srt|vtt|vcf|ics|bak|tmp"
    r"|py|ipynb|sh|bat|ps1|sql|safetensors|onnx|pt|pth|ckpt|bin|exe)"
)
"""File suffixes; without `js` and `net`, as in node.js."""

FILE_LIKE = re.compile(
    r"[.]{1,2}|(~|[.]{1,2})[/\\].*|/\S+|/[^/\s][^/]*/.*|[A-Za-z]:[/\\].*|\\\\.*|(\S+ ){0,2}\S*" + SUFFIX,
    re.IGNORECASE | re.DOTALL,
)
"""Text that looks like a file name: a path that begins at a root or folder, or up to three words that end in a file suffix;
longer texts are sentences."""

STANDARD_INPUT = {"-", "/dev/stdin"}


def text_queries(given: Sequence[str], column: str = "text") -> list[Query]:
    """Queries for the arguments of a command: texts as they are, files replaced by their texts, '-' for standard input.

    `column`: name of the text column of tables and JSON lines. An argument that is neither text nor text file has a `problem`.
    """
    found: list[Query] = []
    for text in given:
        try:
            found += _texts_of(text, column)
        except DataError as error:
            found.append(Query(text, text, str(error)))
    return found


def _texts_of(given: str, column: str) -> Iterable[Query]:
    if given in STANDARD_INPUT:
        return _lines(_decode(sys.stdin.buffer.read(), "standard input"), "standard input")
    if not given.strip():
        raise DataError("an empty text; remove it")
    path = Path(given)
    if not path_exists(path):
        if FILE_LIKE.fullmatch(given):
            raise DataError(f"{given}: no such file; {STDIN_ADVICE}")
        return [Query(given, given)]
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{given}: a folder, and this model reads texts; {STDIN_ADVICE}")
    if suffix in TABLES:
        return _table(path, column)
    if path.is_file() and suffix not in LINES | JSON_LINES:
        raise DataError(f"{given}: a file, but not {FORMATS}; {STDIN_ADVICE}")
    content = _decode(_content(path), given)
    return _json_lines(content, given, column) if suffix in JSON_LINES else _lines(content, given)


def _table(path: Path, column: str) -> Iterator[Query]:
    table = read_table(path)
    require_columns(table.columns, [column], str(path))
    try:
        values = table[column].cast(pl.String).to_list()
    except pl.exceptions.PolarsError:
        raise DataError(f"{path}: column '{column}' holds {table[column].dtype.base_type()}, not text") from None
    return (_query(value, f"{path}, row {row}") for row, value in enumerate(values, 1))


def _lines(content: str, where: str) -> Iterator[Query]:
    """One text per line; blank lines are skipped."""
    rows = [(row, line.rstrip("\n")) for row, line in _numbered(content)]
    if not rows:
        raise DataError(f"{where}: holds no text; write one text per line")
    return (_query(line, f"{where}, line {row}") for row, line in rows)


def _json_lines(content: str, where: str, column: str) -> Iterator[Query]:
    """One JSON object with the text, or JSON string, per line."""
    rows = list(_numbered(content))
    if not rows:
        raise DataError(f"{where}: holds no text; write one JSON object with '{column}' per line")
    return (_from_json(line, f"{where}, line {row}", column) for row, line in rows)


def _from_json(line: str, where: str, column: str) -> Query:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Query(where, "", f"{where}: not JSON ({error})")
    if isinstance(value, dict):
        if column not in value:
            return Query(where, "", f"{where}: no '{column}'; {nearest(column, value)}")
        value = value[column]
    if value is not None and not isinstance(value, str):
        return Query(where, "", f"{where}: '{column}' is not text, but of type {type(value).__name__}")
    return _query(value, where)


def _query(text: str | None, where: str) -> Query:
    """Query for a text, or for the position of a missing one."""
    return Query(text, text) if text and text.strip() else Query(where, "", f"{where}: missing text")


def _numbered(content: str) -> Iterator[tuple[int, str]]:
    """Non-blank lines with their numbers from 1."""
    return ((row, line) for row, line in enumerate(io.StringIO(content, newline=None), 1) if line.strip())


def _decode(content: bytes, where: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}: line {line} is not UTF-8; give a file of text, saved as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{where}: holds binary data, not texts; give {FORMATS}")
    return text


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
