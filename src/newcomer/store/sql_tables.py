"""The tables of item states in a SQL database, and what their rows hold.

    item_states     model, item | version, phase, events, parameters, checksum, updated_at, events_checksum
    item_events     model, item, event | place, time, label, payload
    item_models     model | stages, unit_labels
    item_forgotten  model, item | version

`place` counts an item's events as they came in. `payload` is a JSON list of the event's encoded values, or NULL.
`events_checksum` is SHA-256 over the item's latest events, NULL in a row that was written before there was one.
`stages`: of how many of a learner's stages the items were taken up. `unit_labels`: see `states.ItemStates`; NULL is 0.
`version` of a forgotten item is its last one.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from newcomer.store.states import KEPT, Change, ItemState, latest

TABLES = sa.MetaData()
STATES = sa.Table(
    "item_states",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item", sa.String(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("parameters", sa.LargeBinary, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
    sa.Column("updated_at", sa.String(32), nullable=False),
    sa.Column("events_checksum", sa.String(64)),
)
EVENTS = sa.Table(
    "item_events",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item", sa.String(255), primary_key=True),
    sa.Column("event", sa.String(255), primary_key=True),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("label", sa.SmallInteger, nullable=False),
    sa.Column("payload", sa.Text),
    sa.Index("item_events_place", "model", "item", "place"),
)
MODELS = sa.Table(
    "item_models",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("stages", sa.BigInteger, nullable=False),
    sa.Column("unit_labels", sa.BigInteger),
)
FORGOTTEN = sa.Table(
    "item_forgotten",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item", sa.String(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)


def make_tables(engine: sa.Engine) -> None:
    """Make the tables that are not there, and the columns that older tables have not."""
    TABLES.create_all(engine)
    for table, column, kind in ((STATES, "events_checksum", "VARCHAR(64)"), (MODELS, "unit_labels", "BIGINT")):
        if column not in {there["name"] for there in sa.inspect(engine).get_columns(table.name)}:
            with engine.begin() as connection:
                connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column} {kind}"))


def state_row(model: str, state: ItemState) -> dict[str, Any]:
    """All of an item's row but the checksum of its events."""
    return {
        "model": model,
        "item": state.item,
        "version": state.version,
        "phase": state.phase,
        "events": state.events,
        "parameters": state.parameters,
        "checksum": state.checksum(model),
        "updated_at": state.updated_at,
    }


def event_rows(model: str, change: Change) -> list[dict[str, Any]]:
    """The rows of the events that made a change."""
    item, kept = change.state.item, latest(change.events)
    first = change.state.events - len(change.events)
    return [
        {
            "model": model,
            "item": item,
            "event": event.id,
            "place": first + n,
            "time": event.time,
            "label": event.label,
            "payload": json.dumps(event.values) if event.id in kept else None,
        }
        for n, event in enumerate(change.events)
    ]


Noted = tuple[str, int, int, int, str | None]
"""Of an event its id, place, time, label and payload."""

LATEST = (
    sa.select(EVENTS.c.event, EVENTS.c.place, EVENTS.c.time, EVENTS.c.label, EVENTS.c.payload)
    .where(EVENTS.c.model == sa.bindparam("m"), EVENTS.c.item == sa.bindparam("i"))
    .where(EVENTS.c.place >= sa.bindparam("p"))
    .order_by(EVENTS.c.place, EVENTS.c.event)
)
"""The events of an item that its checksum is about: from a place on."""


def latest_after(before: Sequence[Noted], change: Change, rows: Sequence[dict[str, Any]]) -> list[Noted]:
    """What `LATEST` will find after a change, whose own events have these rows."""
    new = [(row["event"], row["place"], row["time"], row["label"], row["payload"]) for row in rows]
    return [row for row in (*before, *new) if row[1] >= change.state.events - KEPT]


def events_checksum(noted: Sequence[Noted]) -> str:
    """SHA-256 over these events."""
    return hashlib.sha256(json.dumps([list(row) for row in noted]).encode()).hexdigest()
