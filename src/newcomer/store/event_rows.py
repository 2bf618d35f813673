"""Rows of events: what every database stores of an item's events, with checksums.

A row has two checksums, because the values of an event are dropped when 200 later ones have come, and the rest stays for ever:
`checksum` of the row without its values, `payload_checksum` of both. The checksum of an item's latest events is made of theirs.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from newcomer.store.states import KEPT, Change, Event

DIGITS = 32
"""Hexadecimal digits of an event's checksums."""


class EventRow(NamedTuple):
    """A stored event. `position` counts the item's events, see `sql_tables`; `payload`: values, user, weight as JSON, or None."""

    id: str
    position: int
    time: int
    label: int
    payload: str | None
    checksum: str | None
    payload_checksum: str | None


class LatestRow(NamedTuple):
    """What the checksum of an item's latest events needs of one of them."""

    position: int
    checksum: str | None
    payload_checksum: str | None


def event_rows(model: str, change: Change) -> list[EventRow]:
    """Rows of the events of a change."""
    first, last = change.state.events - len(change.events), len(change.events) - KEPT
    rows = []
    for n, event in enumerate(change.events):
        payload = None if event.values is None or n < last else _payload(event)
        checksum = _checksum(model, change.state.item, event.id, first + n, event.time, event.label)
        rows.append(
            EventRow(event.id, first + n, event.time, event.label, payload, checksum, _with_payload(checksum, payload))
        )
    return rows


def is_sound(model: str, item: str, row: EventRow) -> bool:
    """Whether the row, without its values, is what was written."""
    return row.checksum == _checksum(model, item, row.id, row.position, row.time, row.label)


def to_events(model: str, rows: Sequence[tuple[str, EventRow]]) -> list[Event | None]:
    """The events of these items and rows, with their values; None for a row that is not what was written."""
    payloads = [row.payload if _is_kept(model, item, row) else None for item, row in rows]
    together = ",".join(payload or "null" for payload in payloads)  # decoded at once: much faster than one by one
    contents = json.loads(f"[{together}]")
    return [
        None if payload is None else _event(row, content)
        for payload, (_, row), content in zip(payloads, rows, contents, strict=True)
    ]


def _is_kept(model: str, item: str, row: EventRow) -> bool:
    """Whether the row has its values, and is what was written."""
    return row.payload is not None and _is_whole(model, item, row)


def _event(row: EventRow, content: Any) -> Event:
    of_event = content if isinstance(content, dict) else {"values": content}
    return Event(row.id, row.time, row.label, of_event["values"], of_event.get("user"), of_event.get("weight", 1.0))


def with_label(model: str, item: str, row: EventRow, label: int) -> EventRow | None:
    """The row with this label; None if the row is not what was written."""
    return _changed(model, item, row._replace(label=label)) if _is_whole(model, item, row) else None


def with_erased(model: str, item: str, rows: Sequence[EventRow], erased: Collection[str]) -> dict[str, EventRow] | None:
    """An item's latest rows after these ids are erased, by their former checksums; see `Change.erased`.

    `rows` are in the order of their positions. None if one of them is not what was written.
    """
    if not all(_is_whole(model, item, row) for row in rows):
        return None
    order = sorted(rows, key=lambda row: row.id not in erased)
    found = {}
    for before, place in zip(order, rows, strict=True):
        payload = None if before.id in erased else before.payload
        after = before._replace(position=place.position, payload=payload)
        found[str(before.checksum)] = _changed(model, item, after)
    return found


def latest_after(
    before: Sequence[LatestRow], change: Change, rows: Sequence[EventRow], corrected: Mapping[str, EventRow]
) -> list[LatestRow]:
    """An item's latest events after a change with these event rows; `corrected`: earlier ones by their former checksums."""
    earlier = [row if (after := corrected.get(str(row.checksum))) is None else latest_row(after) for row in before]
    earlier.sort(key=lambda row: row.position)
    return [row for row in (*earlier, *map(latest_row, rows)) if row.position >= change.state.events - KEPT]


def latest_checksum(latest: Sequence[LatestRow]) -> str:
    """SHA-256 of an item's latest events."""
    return hashlib.sha256(json.dumps([row[1:] for row in latest]).encode()).hexdigest()


def latest_row(row: EventRow) -> LatestRow:
    """What of a row the checksum of an item's latest events is made of."""
    return LatestRow(row.position, row.checksum, row.payload_checksum)


def _payload(event: Event) -> str:
    user = {} if event.user is None else {"user": event.user}
    weight = {} if event.weight == 1 else {"weight": event.weight}
    content = {**user, "values": event.values, **weight}
    return json.dumps(content if user or weight else event.values)


def _is_whole(model: str, item: str, row: EventRow) -> bool:
    """Whether the row, with its values, is what was written."""
    is_whole = row.payload is None or row.payload_checksum == _with_payload(str(row.checksum), row.payload)
    return is_whole and is_sound(model, item, row)


def _changed(model: str, item: str, row: EventRow) -> EventRow:
    """The row with the checksums of its columns."""
    checksum = _checksum(model, item, row.id, row.position, row.time, row.label)
    return row._replace(checksum=checksum, payload_checksum=_with_payload(checksum, row.payload))


def _checksum(model: str, item: str, id: str, position: int, time: int, label: int) -> str:
    """Of numbers and texts that can be told apart by the texts' lengths."""
    content = f"{position} {time} {label} {len(model)} {len(item)} {model}{item}{id}"
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]


def _with_payload(checksum: str, payload: str | None) -> str | None:
    return None if payload is None else hashlib.sha256(f"{checksum} {payload}".encode()).hexdigest()[:DIGITS]
