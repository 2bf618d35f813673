"""The event log: registered items, events and deletions as JSON lines, from which a click model can be trained anew.

It is written ahead: a record is in the log before the database has it. So the log has all that the database has, and may have
records that the service then refused; reading them again refuses them again.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Timer
from typing import Any, Literal, get_args

from newcomer.errors import StoreError
from newcomer.store.writing import sync, to_json

log = logging.getLogger("newcomer.server")

FOLDER = "log"
"""Folder of the log's files among the service's own files."""

SYNC_SECONDS = 1.0
"""What a power cut may take: the records of so many seconds."""

Kind = Literal["item", "event", "impression", "deletion"]

KINDS: Sequence[Kind] = get_args(Kind)


@dataclass(frozen=True)
class Record:
    """A registered item, an event or an impression by column, or the id of a deleted item.

    `at`: arrival in nanoseconds since 1970. An impression waits for a click; see `impressions`.
    """

    at: int
    kind: Kind
    content: Any


class EventLog:
    """Appends to a file of this process's own. Thread-safe.

    When `append` returns, the records survive the process; a power cut takes at most those of the last `SYNC_SECONDS`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file, self._lock, self._last = -1, Lock(), 0
        self._timer: Timer | None = None

    def append(self, kind: Kind, contents: Sequence[Any]) -> None:
        """Append records. Raises StoreError, and appends nothing, if the disk refuses."""
        if not contents:
            return
        with self._lock:
            try:
                if self._file < 0:
                    self._file = self._create()
                self._write(kind, contents)
            except OSError as error:
                raise StoreError(
                    f"{self.folder}: the event log cannot be written ({error.strerror or error}); nothing was done"
                ) from None
            if self._timer is None:
                self._timer = Timer(SYNC_SECONDS, self._sync)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Write everything to the disk, and close the file."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._file >= 0:
                sync(self._file)
                os.close(self._file)
                self._file = -1

    def _create(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns():016x}-{secrets.token_hex(4)}.jsonl"
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)

    def _write(self, kind: Kind, contents: Sequence[Any]) -> None:
        self._last = max(self._last + 1, time.time_ns())  # the order of arrival survives a clock that is set back
        text = "".join(to_json({"at": self._last, kind: content}) + "\n" for content in contents).encode()
        end = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError:
            os.ftruncate(self._file, end)  # a full disk leaves no part of a request
            raise

    def _sync(self) -> None:
        with self._lock:
            self._timer = None
            if self._file < 0:
                return
            try:
                sync(self._file)
            except OSError as error:
                log.error("%s: the event log cannot be written to the disk (%s)", self.folder, error)


class LogReader:
    """Reads the files of all processes; each call of `read` continues where the last one stopped, the first at `offsets`."""

    def __init__(self, folder: Path, offsets: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self._offsets: dict[str, int] = dict(offsets or {})

    @property
    def offsets(self) -> dict[str, int]:
        """How many bytes of each file were read, by its name."""
        return dict(self._offsets)

    def read(self) -> list[Record]:
        """Records since the last call, in the order of arrival. A line that a killed process left incomplete is none."""
        found: list[Record] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            begin = self._offsets.get(path.name, 0)
            try:
                with path.open("rb") as stream:
                    stream.seek(begin)
                    content = stream.read()
            except OSError as error:
                raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from None
            whole = content[: content.rfind(b"\n") + 1]
            self._offsets[path.name] = begin + len(whole)
            found += [record for line in whole.splitlines() if (record := _record(line, path)) is not None]
        return sorted(found, key=lambda record: record.at)


def _record(line: bytes, path: Path) -> Record | None:
    """The record of a line; None, with a warning, for one that a power cut damaged."""
    try:
        content: Mapping[str, Any] = json.loads(line)
        kind = next(kind for kind in KINDS if kind in content)
        if isinstance(content[kind], str if kind == "deletion" else dict):
            return Record(int(content["at"]), kind, content[kind])
    except (ValueError, KeyError, TypeError, StopIteration):
        pass
    log.warning("%s: a line of the event log is damaged and left out", path)
    return None
