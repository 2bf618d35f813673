"""SQL statements on item states; parameters `m`, `i` and `names`: model, item and several items."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from newcomer.store.sql_tables import DELETED_ITEMS, EVENTS, FORGOTTEN_USERS, MODELS, STATES
from newcomer.store.states import KEPT


class AmongNames(FunctionElement[bool]):
    """Whether a column's text is among `names`: on PostgreSQL one parameter, an array, which is sent and planned fastest."""

    inherit_cache = True
    type = sa.Boolean()


@compiles(AmongNames)
def _in(element: AmongNames, compiler: SQLCompiler, **_: Any) -> str:
    (column,) = element.clauses
    return compiler.process(column.in_(sa.bindparam("names", expanding=True)))


@compiles(AmongNames, "postgresql")
def _any(element: AmongNames, compiler: SQLCompiler, **_: Any) -> str:
    (column,) = element.clauses
    return compiler.process(column == sa.any_(sa.bindparam("names", type_=sa.ARRAY(sa.Text))))


def _of_model(table: sa.Table) -> "sa.ColumnElement[bool]":
    return table.c.model == sa.bindparam("m")


def _of_item(table: sa.Table) -> "sa.ColumnElement[bool]":
    return _of_model(table) & (table.c.item_id == sa.bindparam("i"))


def _of_items(table: sa.Table) -> "sa.ColumnElement[bool]":
    return _of_model(table) & AmongNames(table.c.item_id)


HEADERS: "sa.Select[Any]" = sa.select(STATES.c.item_id, STATES.c.version, STATES.c.phase, STATES.c.event_count)
ALL_HEADERS = HEADERS.where(_of_model(STATES))
HEADERS = HEADERS.where(_of_items(STATES))
ITEMS = sa.select(STATES).where(_of_items(STATES))
LOCKED = (
    sa.select(STATES.c.item_id, STATES.c.version, STATES.c.events_checksum)
    .where(_of_items(STATES))
    .order_by(STATES.c.item_id)  # one order in all processes avoids deadlocks
    .with_for_update()
)
"""Versions of items that nobody else changes until the transaction ends."""
LATEST = (
    sa.select(EVENTS.c.item_id, EVENTS.c.position, EVENTS.c.checksum, EVENTS.c.payload_checksum)
    .join(STATES, (STATES.c.model == EVENTS.c.model) & (STATES.c.item_id == EVENTS.c.item_id))
    .where(_of_items(EVENTS), EVENTS.c.position >= STATES.c.event_count - KEPT)
    .order_by(EVENTS.c.item_id, EVENTS.c.position, EVENTS.c.event_id)
)
"""The latest events of items: those under their checksum."""
_ROW = (
    *(EVENTS.c.item_id, EVENTS.c.event_id, EVENTS.c.position, EVENTS.c.timestamp, EVENTS.c.label),
    *(EVENTS.c.payload, EVENTS.c.checksum, EVENTS.c.payload_checksum),
)
HISTORY = (
    sa.select(*_ROW)
    .where(_of_items(EVENTS), EVENTS.c.payload.is_not(None) | EVENTS.c.payload_checksum.is_not(None))
    .order_by(EVENTS.c.item_id, EVENTS.c.position)
)
"""Items, and the rows of their events in the order of `EventRow`, as `SEEN` has them too."""
SEEN = sa.select(*_ROW).where(
    _of_model(EVENTS),
    sa.tuple_(EVENTS.c.item_id, EVENTS.c.event_id).in_(sa.bindparam("pairs", expanding=True)),
)
_ASKED = (
    sa.func.unnest(sa.bindparam("items", type_=sa.ARRAY(sa.Text)), sa.bindparam("ids", type_=sa.ARRAY(sa.Text)))
    .table_valued("item_id", "event_id", name="asked")
    .render_derived()
)
SEEN_BY_UNNEST = (
    sa.select(*_ROW)
    .join(_ASKED, (EVENTS.c.item_id == _ASKED.c.item_id) & (EVENTS.c.event_id == _ASKED.c.event_id))
    .where(_of_model(EVENTS))
)
"""`SEEN` for PostgreSQL, which plans a list of 500 pairs for longer than it reads them."""
LATEST_ROWS = (
    sa.select(*_ROW)
    .where(_of_item(EVENTS), EVENTS.c.position >= sa.bindparam("first"))
    .order_by(EVENTS.c.position, EVENTS.c.event_id)
)
"""The rows of an item's events from position `first` on, as `SEEN` has them."""
REPLACED = sa.update(STATES).where(_of_item(STATES))
"""With the new row's columns as further parameters."""
CORRECTED = sa.update(EVENTS).where(_of_item(EVENTS), EVENTS.c.event_id == sa.bindparam("e"))
"""With an event's new columns as further parameters."""
DROPPED = (
    sa.update(EVENTS)
    .where(_of_item(EVENTS), EVENTS.c.position >= sa.bindparam("first"), EVENTS.c.position < sa.bindparam("end"))
    .values(payload=None, payload_checksum=None)
)
DELETED = sa.delete(STATES).where(_of_items(STATES))
EVENTS_DELETED = sa.delete(EVENTS).where(_of_items(EVENTS))
LAST_VERSIONS = sa.select(DELETED_ITEMS.c.item_id, DELETED_ITEMS.c.version).where(_of_items(DELETED_ITEMS))
REMEMBERED = sa.delete(DELETED_ITEMS).where(_of_items(DELETED_ITEMS))
STAGES = sa.update(MODELS).where(_of_model(MODELS)).values(imported_stages=sa.bindparam("s"))
UNIT = (
    sa.update(MODELS)
    .where(_of_model(MODELS))
    .values(unit_interval_labels=sa.func.coalesce(MODELS.c.unit_interval_labels, 0) + sa.bindparam("n"))
)
NO_UNIT = sa.update(MODELS).where(_of_model(MODELS), MODELS.c.unit_interval_labels > 0).values(unit_interval_labels=0)
FORGOTTEN: "sa.Select[Any]" = sa.select(FORGOTTEN_USERS.c.user_digest).where(AmongNames(FORGOTTEN_USERS.c.user_digest))
