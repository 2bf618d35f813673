"""SQL statements on item states; parameters `m` and `i`: model and item."""

import sqlalchemy as sa

from newcomer.store.sql_tables import DELETED_ITEMS, EVENTS, MODELS, STATES


def of_item(table: sa.Table) -> "sa.ColumnElement[bool]":
    """Condition: rows of one item of one model."""
    return (table.c.model == sa.bindparam("m")) & (table.c.item_id == sa.bindparam("i"))


SEEN = sa.select(EVENTS.c.event_id, EVENTS.c.label).where(
    of_item(EVENTS), EVENTS.c.event_id.in_(sa.bindparam("ids", expanding=True))
)
CHECKSUM = sa.select(STATES.c.events_checksum).where(of_item(STATES))
VERSION = sa.select(STATES.c.version).where(of_item(STATES))
NOTED = sa.update(STATES).where(of_item(STATES)).values(events_checksum=sa.bindparam("c"))
STAGES = sa.update(MODELS).where(MODELS.c.model == sa.bindparam("m")).values(imported_stages=sa.bindparam("s"))
UNIT = (
    sa.update(MODELS)
    .where(MODELS.c.model == sa.bindparam("m"))
    .values(unit_interval_labels=sa.func.coalesce(MODELS.c.unit_interval_labels, 0) + sa.bindparam("n"))
)
NO_UNIT = (
    sa.update(MODELS)
    .where(MODELS.c.model == sa.bindparam("m"), MODELS.c.unit_interval_labels > 0)
    .values(unit_interval_labels=0)
)
DELETED = sa.delete(STATES).where(of_item(STATES), STATES.c.version == sa.bindparam("v"))
EVENTS_DELETED = sa.delete(EVENTS).where(of_item(EVENTS))
REMEMBERED = sa.delete(DELETED_ITEMS).where(of_item(DELETED_ITEMS))
DROPPED = (
    sa.update(EVENTS)
    .where(of_item(EVENTS))
    .where(EVENTS.c.position < sa.bindparam("p"), EVENTS.c.payload.is_not(None))
    .values(payload=None)
)
REPLACED = sa.update(STATES).where(of_item(STATES), STATES.c.version == sa.bindparam("v"))
