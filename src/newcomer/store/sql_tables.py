"""Tables of item states in a SQL database.

    item_states    model, item_id | version, phase, event_count, parameters, checksum, updated_at, events_checksum
    item_events    model, item_id, event_id | position, timestamp, label, payload
    item_models    model | imported_stages, unit_interval_labels
    deleted_items  model, item_id | version

`position` counts an item's events in the order of arrival. `payload` is a JSON list of the event's encoded values, or NULL.
`events_checksum` is the SHA-256 of the item's latest events. `imported_stages`: number of the learner's stages whose items were
imported. `unit_interval_labels`: see `states.ItemStates`; NULL is 0. `version` of a deleted item is its last one.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from newcomer.errors import StoreError
from newcomer.store.states import KEPT, Change, ItemState, latest

TABLES = sa.MetaData()
STATES = sa.Table(
    "item_states",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item_id", sa.String(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("event_count", sa.BigInteger, nullable=False),
    sa.Column("parameters", sa.LargeBinary, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
    sa.Column("updated_at", sa.String(32), nullable=False),
    sa.Column("events_checksum", sa.String(64)),
)
EVENTS = sa.Table(
    "item_events",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item_id", sa.String(255), primary_key=True),
    sa.Column("event_id", sa.String(255), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("label", sa.SmallInteger, nullable=False),
    sa.Column("payload", sa.Text),
    sa.Index("item_events_position", "model", "item_id", "position"),
)
MODELS = sa.Table(
    "item_models",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("imported_stages", sa.BigInteger, nullable=False),
    sa.Column("unit_interval_labels", sa.BigInteger),
)
DELETED_ITEMS = sa.Table(
    "deleted_items",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item_id", sa.String(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)


def make_tables(engine: sa.Engine) -> None:
    """Create the tables that do not exist.

    Raises StoreError for tables of another layout, before any is created.
    """
    inspector = sa.inspect(engine)
    existing = set(inspector.get_table_names())
    for table in (table for table in TABLES.sorted_tables if table.name in existing):
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        if missing := [column.name for column in table.columns if column.name not in columns]:
            raise StoreError(
                f"{engine.url.render_as_string()}: table '{table.name}' has no column '{missing[0]}': it was written by another "
                "version of newcomer; give another database (--states URL), and send the events again"
            )
    TABLES.create_all(engine)


def state_row(model: str, state: ItemState) -> dict[str, Any]:
    """An item's row without the checksum of its events."""
    return {
        "model": model,
        "item_id": state.item,
        "version": state.version,
        "phase": state.phase,
        "event_count": state.events,
        "parameters": state.parameters,
        "checksum": state.checksum(model),
        "updated_at": state.updated_at,
    }


def event_rows(model: str, change: Change) -> list[dict[str, Any]]:
    """Rows of the events of a change."""
    item, kept = change.state.item, latest(change.events)
    first = change.state.events - len(change.events)
    return [
        {
            "model": model,
            "item_id": item,
            "event_id": event.id,
            "position": first + n,
            "timestamp": event.time,
            "label": event.label,
            "payload": json.dumps(event.values) if event.id in kept else None,
        }
        for n, event in enumerate(change.events)
    ]


EventRow = tuple[str, int, int, int, str | None]
"""An event's id, position, timestamp, label and payload."""

LATEST = (
    sa.select(EVENTS.c.event_id, EVENTS.c.position, EVENTS.c.timestamp, EVENTS.c.label, EVENTS.c.payload)
    .where(EVENTS.c.model == sa.bindparam("m"), EVENTS.c.item_id == sa.bindparam("i"))
    .where(EVENTS.c.position >= sa.bindparam("p"))
    .order_by(EVENTS.c.position, EVENTS.c.event_id)
)
"""An item's events from a position on: those under its checksum."""


def latest_after(before: Sequence[EventRow], change: Change, rows: Sequence[dict[str, Any]]) -> list[EventRow]:
    """Result of `LATEST` after a change with these event rows."""
    new = [(row["event_id"], row["position"], row["timestamp"], row["label"], row["payload"]) for row in rows]
    return [row for row in (*before, *new) if row[1] >= change.state.events - KEPT]


def events_checksum(noted: Sequence[EventRow]) -> str:
    """SHA-256 of these events."""
    return hashlib.sha256(json.dumps([list(row) for row in noted]).encode()).hexdigest()
