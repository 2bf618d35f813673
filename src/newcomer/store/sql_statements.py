"""SQL statements on item states; parameters `m`, `i` and `names`: model, item and several items."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from newcomer.store.sql_engine import DIALECTS
from newcomer.store.sql_tables import DELETED_ITEMS, EVENTS, FORGOTTEN_USERS, MODELS, STATES
from newcomer.store.states import KEPT


class AmongNames(FunctionElement[Any]):
    """Whether a column's text is among `names`: on PostgreSQL one parameter, an array, which is sent and planned fastest.

    Of no type: for SQLite a Boolean is written with `= 1`, and no index is used.
    """

    inherit_cache = True


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
_IS_LATEST = (
    (EVENTS.c.model == STATES.c.model)
    & (EVENTS.c.item_id == STATES.c.item_id)
    & (EVENTS.c.position >= STATES.c.event_count - KEPT)
)


def _of_latest(dialect: str, *names: str) -> "sa.Select[Any]":
    """These columns of items with their latest events; of an item without any there is one row, without an event.

    They are found by position, so that no others are read. PostgreSQL would read all events of a model where its statistics are of
    a time when there were few: `LATERAL … OFFSET 0` leaves it no choice.
    """
    if dialect == "postgresql":
        found = sa.select(EVENTS).where(_IS_LATEST).order_by(EVENTS.c.position).offset(0).lateral("found")
        rows, of_event = STATES.outerjoin(found, sa.true()), found.c
    else:
        rows, of_event = STATES.outerjoin(EVENTS, _IS_LATEST), EVENTS.c
    columns = [STATES.c.item_id, STATES.c.events_checksum, *(of_event[name] for name in names)]
    chosen = sa.select(*columns).select_from(rows).where(_of_items(STATES))
    return chosen.order_by(STATES.c.item_id, of_event.position, of_event.event_id)


_ROW = ("item_id", "event_id", "position", "timestamp", "label", "payload", "checksum", "payload_checksum")
LATEST = {dialect: _of_latest(dialect, "position", "checksum", "payload_checksum") for dialect in DIALECTS}
"""Items, their checksums, and what these are made of, by dialect."""
HISTORY = {dialect: _of_latest(dialect, *_ROW[1:]) for dialect in DIALECTS}
"""Items, their checksums, and the rows of their latest events in the order of `EventRow`, by dialect."""
_ASKED = (
    sa.func.unnest(sa.bindparam("items", type_=sa.ARRAY(sa.Text)), sa.bindparam("ids", type_=sa.ARRAY(sa.Text)))
    .table_valued("item_id", "event_id", name="asked")
    .render_derived()
)
_SEEN = (
    sa.select(*(EVENTS.c[name] for name in _ROW))
    .where(_of_model(EVENTS), EVENTS.c.item_id == _ASKED.c.item_id, EVENTS.c.event_id == _ASKED.c.event_id)
    .offset(0)
    .lateral("found")
)
SEEN: dict[str, sa.Executable] = {
    "postgresql": sa.select(*_SEEN.c).select_from(_ASKED.join(_SEEN, sa.true())),
    "sqlite": sa.text(
        f"SELECT {', '.join(f'found.{name}' for name in _ROW)} FROM :pairs AS asked CROSS JOIN item_events AS found "
        "ON found.model = :m AND found.item_id = asked.column1 AND found.event_id = asked.column2"
    ).bindparams(sa.bindparam("pairs", expanding=True)),
}
"""Items, and the rows of these pairs of an item and an event's id: `items` and `ids`, or `pairs`."""
LATEST_ROWS = (
    sa.select(*(EVENTS.c[name] for name in _ROW))
    .where(_of_item(EVENTS), EVENTS.c.position >= sa.bindparam("first"))
    .order_by(EVENTS.c.position, EVENTS.c.event_id)
)
"""As `SEEN`, the rows of an item's events from position `first` on."""
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
