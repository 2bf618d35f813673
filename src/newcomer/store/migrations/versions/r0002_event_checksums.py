"""Rows of events have checksums, and texts compare by bytes on PostgreSQL as they do on SQLite.

The checksum of an item's latest events is made of the rows' from here on. Where it did not match before, it is left as it is, so
that the item is refused afterwards as it was before.
"""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LATEST = 200
"""Number of events under an item's checksum."""

KEYS = {
    "item_states": {"model": 64, "item_id": 255, "phase": 16, "checksum": 64, "updated_at": 32, "events_checksum": 64},
    "item_events": {"model": 64, "item_id": 255, "event_id": 255, "checksum": 32, "payload_checksum": 32},
    "item_models": {"model": 64},
    "deleted_items": {"model": 64, "item_id": 255},
}
"""Lengths of the columns of text."""

STATES = sa.table("item_states", *map(sa.column, ("model", "item_id", "event_count", "events_checksum")))
EVENT = ("model", "item_id", "event_id", "position", "timestamp", "label", "payload", "checksum", "payload_checksum")
EVENTS = sa.table("item_events", *map(sa.column, EVENT))
OF_ITEM = (EVENTS.c.model == sa.bindparam("m"), EVENTS.c.item_id == sa.bindparam("i"))


def upgrade() -> None:
    """Add the checksums of event rows; on PostgreSQL ids compare by bytes."""
    for name in ("checksum", "payload_checksum"):
        op.add_column("item_events", sa.Column(name, sa.String(32)))
    if op.get_context().dialect.name == "postgresql":
        for table, columns in KEYS.items():
            for column, length in columns.items():
                op.alter_column(table, column, type_=sa.String(length, collation="C"))
    connection = op.get_bind()
    for model, item in list(connection.execute(sa.select(EVENTS.c.model, EVENTS.c.item_id).distinct())):
        _add_checksums(connection, model, item)


def _add_checksums(connection: sa.Connection, model: str, item: str) -> None:
    key = {"m": model, "i": item}
    rows = connection.execute(
        sa.select(EVENTS).where(*OF_ITEM).order_by(EVENTS.c.position, EVENTS.c.event_id), key
    ).all()
    checksums = [_checksums(row) for row in rows]
    connection.execute(
        sa.update(EVENTS)
        .where(*OF_ITEM, EVENTS.c.event_id == sa.bindparam("e"))
        .values(checksum=sa.bindparam("c"), payload_checksum=sa.bindparam("p")),
        [{**key, "e": row.event_id, "c": c, "p": p} for row, (c, p) in zip(rows, checksums, strict=True)],
    )
    state = (STATES.c.model == model) & (STATES.c.item_id == item)
    found = connection.execute(sa.select(STATES.c.event_count, STATES.c.events_checksum).where(state)).first()
    if found is None:
        return
    first = found.event_count - LATEST
    before = [[r.event_id, r.position, r.timestamp, r.label, r.payload] for r in rows if r.position >= first]
    if found.events_checksum == hashlib.sha256(json.dumps(before).encode()).hexdigest():
        after = [both for row, both in zip(rows, checksums, strict=True) if row.position >= first]
        made = hashlib.sha256(json.dumps(after).encode()).hexdigest()
        connection.execute(sa.update(STATES).where(state).values(events_checksum=made))


def _checksums(row: Any) -> tuple[str, str | None]:
    texts = f"{len(row.model)} {len(row.item_id)} {row.model}{row.item_id}{row.event_id}"
    checksum = hashlib.sha256(f"{row.position} {row.timestamp} {row.label} {texts}".encode()).hexdigest()[:32]
    if row.payload is None:
        return checksum, None
    return checksum, hashlib.sha256(f"{checksum} {row.payload}".encode()).hexdigest()[:32]
