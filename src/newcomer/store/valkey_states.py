"""Item states in Valkey or Redis; every change is one script, which the server runs alone and whole.

Keys, after `newcomer:{MODEL}:`

    items            set of the items' ids
    item:ITEM        hash: version, phase, event_count, parameters, checksum, updated_at, events_checksum
    events:ITEM      hash: event id → checksum, and [position, timestamp, label] as JSON
    payloads:ITEM    hash: event id → checksum, and values and user as JSON, of the latest events
    latest:ITEM      list of the latest events' ids
    deleted          hash: item → its last version
    model            hash: imported_stages, unit_interval_labels

`newcomer:revision` is the revision of this layout, `newcomer:forgotten_users` the set of
the digests of forgotten users. See `sql_tables` for the meaning of the columns.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import valkey
from valkey.exceptions import ValkeyError

from newcomer.errors import StoreError
from newcomer.store.event_rows import (
    DIGITS,
    EventRow,
    LatestRow,
    event_rows,
    is_sound,
    latest_after,
    latest_checksum,
    to_events,
    with_erased,
    with_label,
)
from newcomer.store.states import KEPT, Change, Event, ItemHeader, ItemState, ItemStates
from newcomer.store.urls import require_clear, without_secrets
from newcomer.store.valkey_scripts import FORGET, READ, WRITE

REVISION, EARLIER = "2", ("1",)
"""The revision of this layout, and earlier ones, whose content is as well that of this one."""

FORGOTTEN_USERS = "newcomer:forgotten_users"

AT_ONCE = 500
"""Items in one request."""

ATTEMPTS = 100
"""Retries after items were added or deleted by another process meanwhile."""

OF_ITEM = ("item", "events", "payloads", "latest")
"""Keys of one item."""


class ValkeyItemStates(ItemStates):
    """The database at this URL. What a crash of the server may lose depends on its settings; see docs/databases.md.

    `wait_seconds`: how long an answer is waited for. Raises StoreError for a URL or a server that cannot be used.
    """

    def __init__(self, url: str, *, wait_seconds: float = 30.0) -> None:
        require_clear(url)
        self.where = without_secrets(url)
        try:
            self._client: Any = valkey.Valkey.from_url(
                url, socket_timeout=wait_seconds, socket_connect_timeout=wait_seconds
            )
        except ValueError:  # its message may have the password
            raise StoreError(f"{self.where}: no URL of Valkey; write valkey://host:6379/0") from None
        self._read, self._write, self._forget = map(self._client.register_script, (READ, WRITE, FORGET))
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def headers(self, model: str, items: Collection[str] | None = None) -> dict[str, ItemHeader]:
        with self._errors():
            if items is None:
                items = [item.decode() for item in self._client.smembers(f"{_prefix(model)}items")]
            found = self._each(model, items, "item", lambda line, key: line.hmget(key, _HEADER))
            return {item: self._header(item, row) for item, row in found if row[0] is not None}

    def get(self, model: str, items: Collection[str]) -> dict[str, ItemState]:
        with self._errors():
            found = self._each(model, items, "item", lambda line, key: line.hgetall(key))
            return {item: self._state(model, item, row) for item, row in found if row}

    def add(self, model: str, changes: Sequence[Change]) -> set[str]:
        names = [change.state.item for change in changes]
        for _ in range(ATTEMPTS):
            there, last = set(self.headers(model, names)), self._last_versions(model, names)
            new = [_after(change, last) for change in changes if change.state.item not in there]
            if self._insert(model, new, last):
                return there
        raise self._busy()

    def imported_stages(self, model: str) -> int:
        return self._number(model, "imported_stages")

    def import_stages(self, model: str, stages: int, changes: Sequence[Change]) -> None:
        names = [change.state.item for change in changes]
        for _ in range(ATTEMPTS):
            there = {*self.headers(model, names), *self.forgotten(model, names)}
            if self._insert(model, [change for change in changes if change.state.item not in there], {}, stages):
                return
        raise self._busy()

    def unit_labels(self, model: str) -> int:
        return self._number(model, "unit_interval_labels")

    def commit(self, model: str, changes: Sequence[Change]) -> set[str]:
        with self._errors():
            read = self._latest(model, [change.state.item for change in changes])
            keys, arguments, late, due = _common_keys(model), ["each", ""], set[str](), list[str]()
            for change in changes:
                item, state = change.state.item, change.state
                version, noted, latest = read[item]
                if version != str(state.version - 1):
                    late.add(item)
                    continue
                if noted != latest_checksum(list(latest.values())):
                    raise self.damaged(item, "one of its latest events")
                dropped = [id for id, row in latest.items() if row.position < state.events - KEPT]
                keys += _keys(model, item)
                corrected = self._corrected(model, change) | self._erased(model, change)
                arguments += _arguments(model, change, version, "", list(latest.values()), corrected, dropped)
                due.append(item)
            arguments += {event.user for one in changes for event in one.events if event.user is not None}
            return late | {due[int(n)] for n in self._written(keys, arguments)}

    def forget(self, model: str, items: Collection[str]) -> set[str]:
        names = sorted(set(items))
        keys = [*_common_keys(model), *(key for item in names for key in _keys(model, item))]
        with self._errors():
            return {item.decode() for item in self._forget(keys, names)}

    def forgotten(self, model: str, items: Collection[str]) -> set[str]:
        return set(self._last_versions(model, items))

    def forget_users(self, users: Collection[str]) -> None:
        with self._errors():
            if users:
                self._client.sadd(FORGOTTEN_USERS, *sorted(users))

    def forgotten_users(self, users: Collection[str]) -> set[str]:
        names = sorted(users)
        if not names:
            return set()
        with self._errors():
            found = self._client.smismember(FORGOTTEN_USERS, names)
        return {user for user, is_there in zip(names, found, strict=True) if is_there}

    def labels(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        ids = {item: sorted(of_item) for item, of_item in events.items()}
        found: dict[str, dict[str, int]] = {item: {} for item in events}
        asked = [item for item in ids if ids[item]]
        with self._errors():
            line = self._client.pipeline(transaction=False)
            for item in asked:
                line.hmget(f"{_prefix(model)}events:{item}", ids[item])
            for item, rows in zip(asked, line.execute(), strict=True):
                for id, value in zip(ids[item], rows, strict=True):
                    if value is not None:
                        row = self._row(item, id, value)
                        if not is_sound(model, item, row):
                            raise self.damaged(item, f"event '{id}'")
                        found[item][id] = row.label
        return found

    def event_history(self, model: str, items: Collection[str]) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {item: [] for item in items}
        with self._errors():
            kept = [
                (item, self._row(item, id.decode(), value, payload))
                for item, (_, _, ids, rows, payloads) in self._read_items(model, items, whole=True)
                for id, value, payload in zip(ids, rows, payloads, strict=True)
                if payload is not None and value is not None
            ]
        for (item, row), event in zip(kept, to_events(model, kept), strict=True):
            if event is None:
                raise self.damaged(item, f"event '{row.id}'")
            found[item].append(event)
        return found

    def close(self) -> None:
        self._client.close()

    def _prepare(self) -> None:
        """Refuse what would not keep the states, or has another layout."""
        server = self._client.info()
        self.read_only = server["role"] != "master"
        if server.get("maxmemory") and str(server.get("maxmemory_policy", "")).startswith("allkeys"):
            raise StoreError(
                f"{self.where}: the server evicts keys when its memory is full ({server['maxmemory_policy']}), and with them "
                "states; set maxmemory-policy to noeviction"
            )
        revision = self._client.get("newcomer:revision")
        if revision is not None and revision.decode() not in (REVISION, *EARLIER):
            raise StoreError(
                f"{self.where}: its states are of a later version of newcomer ({revision.decode()}; this one knows {REVISION}); "
                "update newcomer"
            )
        if not self.read_only:
            self._client.set("newcomer:revision", REVISION)

    def _each(self, model: str, items: Collection[str], kind: str, ask: Any) -> Iterator[tuple[str, Any]]:
        """Answers to a request for one key of each of these items."""
        names = sorted(items)
        for start in range(0, len(names), AT_ONCE):
            part, line = names[start : start + AT_ONCE], self._client.pipeline(transaction=False)
            for item in part:
                ask(line, f"{_prefix(model)}{kind}:{item}")
            yield from zip(part, line.execute(), strict=True)

    def _read_items(self, model: str, items: Collection[str], whole: bool) -> Iterator[tuple[str, Any]]:
        """Version, checksum and latest events of items, each as at one moment; of values only the checksum if not `whole`."""
        names = sorted(set(items))
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            keys = [key for item in part for key in _keys(model, item)]
            yield from zip(part, self._read(keys, [-1 if whole else DIGITS]), strict=True)

    def _latest(self, model: str, items: Collection[str]) -> dict[str, tuple[str, str, dict[str, LatestRow]]]:
        """Version and checksum of items, and their latest events by id."""
        found = {}
        for item, (version, noted, ids, rows, payloads) in self._read_items(model, items, whole=False):
            latest = {}
            for id, value, payload in zip(ids, rows, payloads, strict=True):
                if value is not None:
                    row = self._row(item, id.decode(), value, payload)
                    latest[row.id] = LatestRow(row.position, row.checksum, row.payload_checksum)
            found[item] = ((version or b"").decode(), (noted or b"").decode(), latest)
        return found

    def _corrected(self, model: str, change: Change) -> dict[str, EventRow]:
        """Rows of the events whose labels a change corrects, with the new labels, by their former checksums."""
        item, found, ids = change.state.item, dict[str, EventRow](), sorted(change.labels)
        if not ids:
            return found
        line, (row_key, events_key, payloads_key, _) = self._client.pipeline(transaction=True), _keys(model, item)
        line.hget(row_key, "version").hmget(events_key, ids).hmget(payloads_key, ids)
        version, rows, payloads = line.execute()
        if version != str(change.state.version - 1).encode():
            return found  # is late
        for id, value, payload in zip(ids, rows, payloads, strict=True):
            row = None if value is None else self._row(item, id, value, payload)
            after = None if row is None else with_label(model, item, row, change.labels[id])
            if row is None or after is None:
                raise self.damaged(item, f"event '{id}'")
            found[str(row.checksum)] = after
        return found

    def _erased(self, model: str, change: Change) -> dict[str, EventRow]:
        """Rows of the latest events after those are erased that the change says, by their former checksums."""
        item, found = change.state.item, list[EventRow]()
        if not change.erased:
            return {}
        ((_, (_, _, ids, rows, payloads)),) = self._read_items(model, [item], whole=True)
        for id, value, payload in zip(ids, rows, payloads, strict=True):
            if value is not None:
                found.append(self._row(item, id.decode(), value, payload))
        after = with_erased(model, item, found, change.erased)
        if after is None:
            raise self.damaged(item, "one of its latest events")
        return after

    def _insert(
        self, model: str, changes: Sequence[Change], last: Mapping[str, int], stages: int | None = None
    ) -> bool:
        """Insert new items, all or none; False if one is there by now, or was deleted meanwhile."""
        keys, arguments = _common_keys(model), ["all", "" if stages is None else str(stages)]
        for change in changes:
            keys += _keys(model, change.state.item)
            arguments += _arguments(model, change, "", str(last.get(change.state.item, "")), [], {}, [])
        with self._errors():
            return not self._written(keys, arguments)

    def _written(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """Result of the script: the numbers of the changes that came too late."""
        found: list[Any] = self._write(keys, arguments)
        return found

    def _last_versions(self, model: str, items: Collection[str]) -> dict[str, int]:
        """Last versions of deleted items."""
        names = sorted(set(items))
        if not names:
            return {}
        with self._errors():
            found = self._client.hmget(f"{_prefix(model)}deleted", names)
        return {item: int(version) for item, version in zip(names, found, strict=True) if version is not None}

    def _number(self, model: str, field: str) -> int:
        with self._errors():
            return int(self._client.hget(f"{_prefix(model)}model", field) or 0)

    def _header(self, item: str, row: Sequence[bytes | None]) -> ItemHeader:
        version, phase, events = row
        try:
            return ItemHeader(int(version or b""), (phase or b"").decode(), int(events or b""))
        except ValueError:
            raise self.damaged(item, "its row") from None

    def _state(self, model: str, item: str, row: Mapping[bytes, bytes]) -> ItemState:
        header = self._header(item, [row.get(field.encode()) for field in _HEADER])
        updated = row.get(b"updated_at", b"").decode(errors="replace")
        state = ItemState(item, header.version, header.phase, header.events, row.get(b"parameters", b""), updated)
        if state.checksum(model).encode() != row.get(b"checksum"):
            raise self.damaged(item, "its row")
        return state

    def _row(self, item: str, id: str, value: bytes, payload: bytes | None = None) -> EventRow:
        try:
            position, time, label = json.loads(value[DIGITS:])
            text = None if payload is None else payload[DIGITS:].decode()
            checksum = None if payload is None else payload[:DIGITS].decode()
            return EventRow(id, int(position), time, label, text, value[:DIGITS].decode(), checksum)
        except (ValueError, TypeError):
            raise self.damaged(item, f"event '{id}'") from None

    def _busy(self) -> StoreError:
        return StoreError(f"{self.where}: items were added and deleted by others {ATTEMPTS} times meanwhile; try again")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Within, errors of the server are StoreErrors, one line with what to do."""
        try:
            yield
        except ValkeyError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            then = (
                "open it once where it can be written"
                if "read only" in reason
                else "see that it is there and may be written"
            )
            raise StoreError(f"{self.where}: the database refused ({reason}); {then}") from None


_HEADER = ("version", "phase", "event_count")


def _prefix(model: str) -> str:
    return f"newcomer:{{{model}}}:"


def _common_keys(model: str) -> list[str]:
    return [f"{_prefix(model)}{kind}" for kind in ("items", "model", "deleted")] + [FORGOTTEN_USERS]


def _keys(model: str, item: str) -> list[str]:
    return [f"{_prefix(model)}{kind}:{item}" for kind in OF_ITEM]


def _arguments(
    model: str,
    change: Change,
    version: str,
    deleted: str,
    before: Sequence[LatestRow],
    corrected: Mapping[str, EventRow],
    dropped: Sequence[str],
) -> list[Any]:
    """What the script needs of one change: see `valkey_scripts.WRITE`.

    Raises StoreError for an event id that comes twice.
    """
    state, rows = change.state, event_rows(model, change)
    if len({row.id for row in rows}) < len(rows):
        raise StoreError(f"item '{state.item}': an event comes twice in one change; its id must be unique")
    noted = latest_checksum(latest_after(before, change, rows, corrected))
    row = [state.version, state.phase, state.events, state.parameters, state.checksum(model), state.updated_at, noted]
    unit = "" if change.unit_interval is None else str(int(change.unit_interval))
    found: list[Any] = [state.item, version, deleted, *row, unit]
    for events in (rows, corrected.values()):
        found.append(len(events))
        for event in events:
            content = f"{event.checksum}{json.dumps([event.position, event.time, event.label])}"
            found += [event.id, content, "" if event.payload is None else f"{event.payload_checksum}{event.payload}"]
    found += [len(dropped), *dropped]
    order = sorted(corrected.values(), key=lambda row: row.position) if change.erased else []
    return [*found, len(order), *(row.id for row in order)]


def _after(change: Change, last: Mapping[str, int]) -> Change:
    """The change with a version after the last one of a deleted item."""
    item = change.state.item
    return replace(change, state=replace(change.state, version=last[item] + 1)) if item in last else change
