"""Tables of item states in a SQL database.

    item_states          model, item_id | version, phase, event_count, parameters, checksum, updated_at, events_checksum
    item_events          model, item_id, event_id | position, timestamp, label, payload, checksum, payload_checksum
    item_models          model | imported_stages, unit_interval_labels
    deleted_items        model, item_id | version
    forgotten_users      user_digest
    item_states_version  version_num

`position` counts an item's events in the order of arrival; erased ones go before the latest. `payload` is JSON: the event's
encoded values with its user's digest, or the list of the values alone, or NULL.
`events_checksum` is the SHA-256 of the item's latest events; see `event_rows`. `imported_stages`: number of the learner's stages
whose items were imported. `unit_interval_labels`: see `states.ItemStates`; NULL is 0. `version` of a deleted item is its last one.
`version_num` is the revision of these tables; see `sql_schema`. Texts compare by bytes.
"""

from typing import Any

import sqlalchemy as sa

from newcomer.store.event_rows import EventRow
from newcomer.store.states import ItemState


def text(length: int) -> sa.String:
    """A text that compares by bytes: SQLite's default, and PostgreSQL's collation C."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


TABLES = sa.MetaData()
STATES = sa.Table(
    "item_states",
    TABLES,
    sa.Column("model", text(64), primary_key=True),
    sa.Column("item_id", text(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("phase", text(16), nullable=False),
    sa.Column("event_count", sa.BigInteger, nullable=False),
    sa.Column("parameters", sa.LargeBinary, nullable=False),
    sa.Column("checksum", text(64), nullable=False),
    sa.Column("updated_at", text(32), nullable=False),
    sa.Column("events_checksum", text(64)),
)
_UNCOMPRESSED = sa.DDL("ALTER TABLE item_states ALTER COLUMN parameters SET STORAGE EXTERNAL")  # type: ignore[no-untyped-call]
"""PostgreSQL compresses long values: of new parameters each time, that takes longer than to write them."""
sa.event.listen(STATES, "after_create", _UNCOMPRESSED.execute_if(dialect="postgresql"))
EVENTS = sa.Table(
    "item_events",
    TABLES,
    sa.Column("model", text(64), primary_key=True),
    sa.Column("item_id", text(255), primary_key=True),
    sa.Column("event_id", text(255), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("label", sa.SmallInteger, nullable=False),
    sa.Column("payload", sa.Text),
    sa.Column("checksum", text(32)),
    sa.Column("payload_checksum", text(32)),
    sa.Index("item_events_position", "model", "item_id", "position"),
)
MODELS = sa.Table(
    "item_models",
    TABLES,
    sa.Column("model", text(64), primary_key=True),
    sa.Column("imported_stages", sa.BigInteger, nullable=False),
    sa.Column("unit_interval_labels", sa.BigInteger),
)
DELETED_ITEMS = sa.Table(
    "deleted_items",
    TABLES,
    sa.Column("model", text(64), primary_key=True),
    sa.Column("item_id", text(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)
FORGOTTEN_USERS = sa.Table("forgotten_users", TABLES, sa.Column("user_digest", text(32), primary_key=True))
REVISION = sa.Table("item_states_version", TABLES, sa.Column("version_num", text(32), primary_key=True))


def state_row(model: str, state: ItemState, events_checksum: str) -> dict[str, Any]:
    """An item's row."""
    return {
        "model": model,
        "item_id": state.item,
        "version": state.version,
        "phase": state.phase,
        "event_count": state.events,
        "parameters": state.parameters,
        "checksum": state.checksum(model),
        "updated_at": state.updated_at,
        "events_checksum": events_checksum,
    }


def event_row(model: str, item: str, row: EventRow) -> dict[str, Any]:
    """An event's row."""
    return {
        "model": model,
        "item_id": item,
        "event_id": row.id,
        "position": row.position,
        "timestamp": row.time,
        "label": row.label,
        "payload": row.payload,
        "checksum": row.checksum,
        "payload_checksum": row.payload_checksum,
    }
