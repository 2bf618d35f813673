"""The record of a run: JSON lines, one event a line, complete up to the last stage that was finished."""

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
    """The events of a record; a last line that a kill left unfinished is passed over.

    Raises StoreError where the file is missing or a line inside it is no event.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a class name may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: no record of a run can be read here ({error})") from None
    for number, line in enumerate(lines[:-1], 1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise StoreError(f"{path}: line {number} is no event; remove the run and start it again")
        yield event


class RecordWriter:
    """Appends events; `commit` puts them on disk, and what was not committed is gone after a kill.

    `keep` is the number of stages to keep of a record that is there already; everything after them is cut off.
    Raises StoreError when the disk refuses; the record then stays as it was.
    """

    def __init__(self, path: str | Path, keep: int = 0) -> None:
        self.path = Path(path)
        kept: list[str] = []
        if keep and self.path.exists():
            stages = 0
            for event in read_record(self.path):
                kept.append(_line(event))
                stages += event["event"] == "stage"
                if stages == keep:
                    break
        with self._refusing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, "".join(kept))
        self._pending: list[str] = []

    def write(self, event: Event) -> None:
        self._pending.append(_line(event))

    def commit(self) -> None:
        with self._refusing():
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
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path}: could not be written ({error.strerror or error}); nothing was changed"
            ) from None


def _line(event: Event) -> str:
    return to_json(dict(event)) + "\n"
