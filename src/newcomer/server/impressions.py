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
from pathlib import Path

from filelock import Timeout

from newcomer.errors import NewcomerError, StoreError
from newcomer.server.click_versions import ClickVersions
from newcomer.server.event_log import FOLDER, LogReader, Record
from newcomer.server.event_rows import warm_rows
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
            for service in (serving.live, *serving.others):
                _, refused = warm_rows(service, [record.content for record in part], has_id=True)
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
