"""Formats of tables by suffix: what separates values, how a file is decompressed, how a columnar file is scanned."""

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

import polars as pl

from newcomer.data.io.remote import LogFile, local
from newcomer.errors import DataError
from newcomer.extras import optional_imports


@dataclass(frozen=True)
class Format:
    """A columnar file has `scan`, delimited text its usual `separator`, JSON lines neither."""

    scan: Callable[[Path], pl.LazyFrame] | None = None
    separator: str | None = None
    decompress: Callable[[Path], IO[bytes]] | None = None

    @property
    def is_json(self) -> bool:
        return self.scan is None and self.separator is None


def _scan_parquet(file: Path) -> pl.LazyFrame:
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def _scan_ipc(file: Path) -> pl.LazyFrame:
    return pl.scan_ipc(file, glob=False, hive_partitioning=False)


def _open_zstd(file: Path) -> IO[bytes]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        with optional_imports():
            from backports import zstd
    return cast(IO[bytes], zstd.open(file, "rb"))


def _open_gzip(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb"))


FORMATS = {
    **dict.fromkeys((".csv",), Format(separator=",")),
    **dict.fromkeys((".tsv", ".tab"), Format(separator="\t")),
    **dict.fromkeys((".jsonl", ".ndjson"), Format()),
    **dict.fromkeys((".parquet", ".pq"), Format(scan=_scan_parquet)),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), Format(scan=_scan_ipc)),
}

COMPRESSIONS: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": _open_gzip,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
"""Compressions of text; columnar files are compressed inside."""

UNSUPPORTED = {
    **dict.fromkeys((".zip", ".7z", ".rar"), "an archive"),
    **dict.fromkeys(COMPRESSIONS, "a compressed file"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet"),
    **dict.fromkeys((".json",), "JSON as a whole"),
    **dict.fromkeys((".arrows", ".orc", ".avro"), "a columnar file of another kind"),
}
"""Names of unsupported formats by suffix."""


def find_format(name: str) -> Format | None:
    """The format that a file name says.

    >>> find_format("clicks.CSV.gz").separator
    ','
    >>> find_format("clicks.parquet.gz") is None
    True
    """
    name = name.lower()
    ending = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    found = FORMATS.get(Path(name.removesuffix(ending)).suffix)
    if found is None or not ending:
        return found
    return None if found.scan else replace(found, decompress=COMPRESSIONS[ending])


def format_of(file: LogFile) -> Format:
    """Raises DataError for a file of no format that is read, with its format if known by suffix."""
    if isinstance(file, Path) and file.is_dir():
        raise DataError(f"{file}: is a folder; give a file in it")
    found = find_format(file.name)
    if found is None:
        known = next((what for suffix, what in UNSUPPORTED.items() if file.name.lower().endswith(suffix)), None)
        raise DataError(
            f"{file}: neither .csv nor .parquet{f', but {known}; write it as one of the two' if known else ''}"
            + ("" if known else "; convert it to one of the two (.tsv, .jsonl and .arrow are read too)")
        )
    return found


def open_content(file: LogFile) -> IO[bytes]:
    """The bytes of a text file, decompressed. Errors in compressed data: see `decompression_errors`."""
    return (format_of(file).decompress or _open_plain)(local(file))


def content_size(file: LogFile, most: int) -> int:
    """Size in bytes, of a compressed file after decompression; reading ends beyond `most`."""
    if not format_of(file).decompress:
        return local(file).stat().st_size
    size = 0
    with decompression_errors(), open_content(file) as stream:
        while size <= most and (block := stream.read(1 << 20)):
            size += len(block)
    return size


@contextmanager
def decompression_errors() -> Iterator[None]:
    """Context in which damaged compressed data is an OSError, whatever the compression."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise OSError(f"damaged: {error}") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # of the standard library or its backport, or not there at all
            raise
        raise OSError(f"damaged: {error}") from None


def _open_plain(file: Path) -> IO[bytes]:
    return file.open("rb")
