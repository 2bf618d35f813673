"""Impressions that wait for a click: at the end of their window they count as no click.

They are in the event log and nowhere else until then. A click that comes later corrects what was counted, so that neither an
impression counted twice nor a click that came too late does harm: the database knows an event by its id.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from threading import Lock

from filelock import Timeout

from newcomer.data.canonical import canonical_name
from newcomer.data.schema import Schema
from newcomer.errors import DataError, NewcomerError, StoreError
from newcomer.items.serving.event_batch import EventBatch, same_values
from newcomer.items.serving.requests import parse_events
from newcomer.items.serving.service import ItemService
from newcomer.server.click_versions import ClickVersions
from newcomer.server.event_log import FOLDER, LogReader, Record
from newcomer.server.event_rows import Row, by_kind, event_id_column, warm_rows
from newcomer.server.history import batches, name_of
from newcomer.store.writing import take_lock, to_json, write_whole

log = logging.getLogger("newcomer.server")

POSITION = "impressions.json"
"""File of the service's folder: up to where all impressions of the log's files have counted."""

POLL_SECONDS = 1.0
NOTE_SECONDS = 60.0
"""How often impressions are looked for, and the position is written at most."""


@dataclass(frozen=True)
class _Mark:
    """A position in the log's files, reached at a time, and when the latest impression before it came that waited then."""

    when: int
    offsets: Mapping[str, int]
    latest: int


class Impressions:
    """Counts the impressions of the event log in `folder`, the service's own, `window_seconds` after they came."""

    def __init__(self, versions: ClickVersions, folder: Path, window_seconds: float) -> None:
        self.versions, self.folder, self.window = versions, folder, round(window_seconds * 1e9)
        self._schema = versions.current().live.learner.schema
        self._reader = LogReader(folder / FOLDER, _position(folder / POSITION))
        self._waiting: list[Record] = []
        self._mark: _Mark | None = None

    def settle(self, now: int) -> int:
        """Count the impressions whose window has ended, at `now` in nanoseconds since 1970; returns how many there were.

        Raises StoreError if the database or the log cannot be used; the same impressions are counted at the next call.
        """
        for record in self._reader.read():
            if record.kind == "impression":
                self._waiting.append(record)
            elif record.kind == "deletion":  # an item that is added again is another one
                self._waiting = [one for one in self._waiting if name_of(one, self._schema) != record.content]
        due = [record for record in self._waiting if record.at + self.window <= now]
        for part in batches(due):
            serving = self.versions.latest()
            rows = [record.content for record in part]
            for service in (serving.live, *serving.others.values()):
                for kind, numbers in by_kind(rows, self._schema).items():
                    _, refused = warm_rows(service, [rows[number] for number in numbers], kind)
                    for line in refused:
                        log.warning("impression: %s", line)
        self._waiting = [record for record in self._waiting if record.at + self.window > now]
        self._note(now)
        return len(due)

    def _note(self, now: int) -> None:
        """Write the position of a while ago if all impressions before it have counted."""
        if self._mark is None:
            self._mark = _Mark(now, self._reader.offsets, max((one.at for one in self._waiting), default=0))
        elif now - self._mark.when >= NOTE_SECONDS * 1e9 and self._mark.latest + self.window <= now:
            write_whole(self.folder / POSITION, to_json(self._mark.offsets))
            self._mark = None


class WaitingImpressions:
    """The impressions that wait, of all processes, by item and id: an event of another user or context is not one of them.

    Thread-safe. What two processes get at once meets at the end of the window: there the second is refused, in the log.
    """

    def __init__(self, folder: Path, window_seconds: float, schema: Schema) -> None:
        self._window, self._schema, self._id_column = round(window_seconds * 1e9), schema, event_id_column(schema)
        self._reader = LogReader(folder / FOLDER, _position(folder / POSITION))
        self._found, self._lock = dict[tuple[str, str], Record](), Lock()

    def under_ids_of_others(self, service: ItemService, rows: Mapping[int, Row]) -> dict[int, str]:
        """Why some of these rows of a request, by their numbers, are refused: their ids wait, or came before, with other values."""
        pairs, here = list[tuple[int, Row, Row]](), dict[tuple[str, str], Row]()
        with self._lock:
            self._refresh(time.time_ns())
            for number, row in rows.items():
                if (key := self._key(row)) is not None:
                    waits = self._found.get(key)
                    before = here.setdefault(key, row) if waits is None else waits.content
                    pairs += [(number, before, row)] if before is not row else []
        if not pairs:
            return {}
        table = [{**row, self._schema.label: 0} for _, *both in pairs for row in both]
        reader, encoder = service.reader_of_clicks, service.learner.encoder
        try:
            parsed = parse_events(table, encoder, reader, self._id_column, "events", "report")
        except DataError:  # is refused where it is counted
            return {}
        if parsed.log is None:
            return {}
        at = {row: n for n, row in enumerate(parsed.log.row.tolist())}
        found, batch = dict[int, str](), EventBatch(parsed.log, parsed.ids)
        for k, (number, _, _) in enumerate(pairs):
            one, other = at.get(2 * k), at.get(2 * k + 1)
            if one is not None and other is not None and not same_values(parsed.log, one, other):
                found[number] = f"row {number + 1}:{str(batch.other_values(other)).partition(':')[2]}"
        return found

    def _refresh(self, now: int) -> None:
        for record in self._reader.read():
            if record.kind == "impression" and (key := self._key(record.content)) is not None:
                self._found.setdefault(key, record)
            elif record.kind == "deletion":
                self._found = {key: one for key, one in self._found.items() if key[0] != record.content}
        for key in [*takewhile(lambda key: self._found[key].at + self._window <= now, self._found)]:
            del self._found[key]

    def _key(self, row: Row) -> tuple[str, str] | None:
        """Item and id of a row; None for one without an id, and for what is none."""
        try:
            item, id = canonical_name(row.get(self._schema.item)), canonical_name(row.get(self._id_column))
        except DataError:
            return None
        return None if item is None or id is None else (item, id)


@contextmanager
def counted_in_time(versions: ClickVersions, folder: Path, window_seconds: float | None) -> Iterator[None]:
    """Count impressions at the end of their window, in a thread of one of the processes on this folder.

    Without a window those that an earlier one left are counted at once.
    """
    if window_seconds is None and not (folder / POSITION).exists():
        yield
        return
    stopped = threading.Event()
    thread = threading.Thread(target=_run, args=(versions, folder, window_seconds or 0.0, stopped))
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _run(versions: ClickVersions, folder: Path, window_seconds: float, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            lock = take_lock(folder / ".impressions")
        except Timeout:  # another process does it
            stopped.wait(POLL_SECONDS)
            continue
        try:
            if not (folder / POSITION).exists():  # from here on a service without a window looks for what is left
                write_whole(folder / POSITION, "{}")
            impressions = Impressions(versions, folder, window_seconds)
            while not stopped.is_set():
                impressions.settle(time.time_ns())
                stopped.wait(POLL_SECONDS)
        except NewcomerError as error:
            log.error("%s; impressions are counted later", error)
            stopped.wait(POLL_SECONDS)
        finally:
            lock.release()


def _position(path: Path) -> dict[str, int]:
    """What the file says; nothing without a file, so that all of the log is read. Raises StoreError for a damaged one."""
    try:
        return {str(name): int(end) for name, end in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError):
        raise StoreError(
            f"{path}: cannot be read; delete it, and all impressions of the log are counted again, once"
        ) from None
