"""The record of a run: one JSON event per line, complete up to the last finished stage."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from newcomer.errors import StoreError
from newcomer.settings import Json
from newcomer.store.writing import sync, to_json, write_whole

Event = Mapping[str, Json]


def read_record(path: str | Path) -> Iterator[Event]:
    """The events of a record; an unterminated last line, left by a killed process, is ignored.

    Raises StoreError if the file cannot be read or another line is not an event.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a class name may contain other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read as the record of a run ({error})") from None
    for number, line in enumerate(lines[:-1], 1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise StoreError(f"{path}: line {number} is not a valid event; remove the run and start it again")
        yield event


class RecordWriter:
    """Appends events to a record; `commit` writes the pending ones to disk.

    `keep`: the number of stages to keep of an existing record; it is truncated after them.
    Raises StoreError if the record cannot be written; it then stays as it was.
    """

    def __init__(self, path: str | Path, keep: int = 0) -> None:
        self.path = Path(path)
        lines: list[str] = []
        if keep and self.path.exists():
            stages = 0
            for event in read_record(self.path):
                lines.append(_line(event))
                stages += event["event"] == "stage"
                if stages == keep:
                    break
        with self._store_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, "".join(lines))
        self._pending: list[str] = []

    def write(self, event: Event) -> None:
        self._pending.append(_line(event))

    def commit(self) -> None:
        with self._store_errors():
            size = self.path.stat().st_size
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(self._pending))
                    file.flush()
                    sync(file.fileno())
            except OSError:
                os.truncate(self.path, size)
                raise
        self._pending.clear()

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path}: could not be written ({error.strerror or error}); nothing was changed"
            ) from None


def _line(event: Event) -> str:
    return to_json(dict(event)) + "\n"
