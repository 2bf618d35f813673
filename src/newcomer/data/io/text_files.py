"""Texts to be answered: as they are, from files with a text a line, from tables, and from standard input."""

import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from newcomer.data.inputs import Asked
from newcomer.data.io.tables import read_table, require_columns
from newcomer.data.paths import is_there
from newcomer.errors import DataError, nearest

TABLES = {".csv", ".parquet", ".pq"}
LINES = {".txt", ".text"}
JSON_LINES = {".jsonl", ".ndjson"}

READ = ".txt (a text a line), .jsonl, .csv or .parquet"

INSTEAD = "if it is a text, give it on standard input: -"

SUFFIX = (
    r"[.](txt|text|rtf|tex|rst|md|org|log|eml|msg|docx?|dotx?|odt|pages|pdf|epub|html?|xml|svg|json|jsonl|ndjson|ya?ml|toml|ini|cfg|conf"
    r"|csv|tsv|dat|parquet|pq|feather|arrow|orc|avro|xlsx?|xlsm|ods|numbers|sqlite3?|db|h5|npy|npz|pptx?|odp|key|gz|bz2|xz|zst|zip|rar|7z|tar|tgz"
    r"|png|jpe?g|gif|bmp|webp|tiff?|heic|heif|avif|ico|mp3|mp4|m4a|wav|avi|mov|mkv|srt|vtt|vcf|ics|bak|tmp"
    r"|py|ipynb|sh|bat|ps1|sql|safetensors|onnx|pt|pth|ckpt|bin|exe)"
)
"""Suffixes of files; `js` and `net` are not among them, for node.js is a subject and no file."""

FILE_LIKE = re.compile(
    r"[.]{1,2}|(~|[.]{1,2})[/\\].*|/\S+|/[^/\s][^/]*/.*|[A-Za-z]:[/\\].*|\\\\.*|(\S+ ){0,2}\S*" + SUFFIX,
    re.IGNORECASE | re.DOTALL,
)
"""What a text looks like that is meant as a file's name: a path that begins at a root or a folder, or up to three words that end
in a file's suffix; a longer one is a sentence."""

STANDARD_INPUT = {"-", "/dev/stdin"}


def texts(given: Sequence[str], column: str = "text") -> list[Asked]:
    """What a command was given: texts as they are, files in place of their names, '-' for standard input.

    `column` holds the texts of tables and of JSON lines. What is no text, or no file of texts, has a `problem`.
    """
    found: list[Asked] = []
    for text in given:
        try:
            found += _texts_of(text, column)
        except DataError as error:
            found.append(Asked(text, text, str(error)))
    return found


def _texts_of(given: str, column: str) -> Iterable[Asked]:
    if given in STANDARD_INPUT:
        return _lines(_decoded(sys.stdin.buffer.read(), "standard input"), "standard input")
    if not given.strip():
        raise DataError("an empty text; leave it out")
    path = Path(given)
    if not is_there(path):
        if FILE_LIKE.fullmatch(given):
            raise DataError(f"{given}: no such file; {INSTEAD}")
        return [Asked(given, given)]
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{given}: a folder, and this model reads texts; {INSTEAD}")
    if suffix in TABLES:
        return _table(path, column)
    if path.is_file() and suffix not in LINES | JSON_LINES:
        raise DataError(f"{given}: a file, but not {READ}; {INSTEAD}")
    content = _decoded(_content(path), given)
    return _json_lines(content, given, column) if suffix in JSON_LINES else _lines(content, given)


def _table(path: Path, column: str) -> Iterator[Asked]:
    table = read_table(path)
    require_columns(table.columns, [column], str(path))
    try:
        values = table[column].cast(pl.String).to_list()
    except pl.exceptions.PolarsError:
        raise DataError(f"{path}: column '{column}' holds {table[column].dtype.base_type()}, not text") from None
    return (_asked(value, f"{path}, row {row}") for row, value in enumerate(values, 1))


def _lines(content: str, where: str) -> Iterator[Asked]:
    """A text a line; blank lines part them and are none."""
    rows = [(row, line.rstrip("\n")) for row, line in _numbered(content)]
    if not rows:
        raise DataError(f"{where}: holds no text; write a text a line")
    return (_asked(line, f"{where}, line {row}") for row, line in rows)


def _json_lines(content: str, where: str, column: str) -> Iterator[Asked]:
    """Of each line the object's text, or the text that it is."""
    rows = list(_numbered(content))
    if not rows:
        raise DataError(f"{where}: holds no text; write a JSON object with '{column}' a line")
    return (_from_json(line, f"{where}, line {row}", column) for row, line in rows)


def _from_json(line: str, where: str, column: str) -> Asked:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Asked(where, "", f"{where}: not JSON ({error})")
    if isinstance(value, dict):
        if column not in value:
            return Asked(where, "", f"{where}: no '{column}'; {nearest(column, value)}")
        value = value[column]
    if value is not None and not isinstance(value, str):
        return Asked(where, "", f"{where}: '{column}' is no text, but of type {type(value).__name__}")
    return _asked(value, where)


def _asked(text: str | None, where: str) -> Asked:
    """A text is called as it is, a missing one by its place."""
    return Asked(text, text) if text and text.strip() else Asked(where, "", f"{where}: no text there")


def _numbered(content: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    return ((row, line) for row, line in enumerate(io.StringIO(content, newline=None), 1) if line.strip())


def _decoded(content: bytes, where: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}: line {line} is not UTF-8; give a file of text, saved as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{where}: holds binary data, not texts; give {READ}")
    return text


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
