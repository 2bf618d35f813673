"""The first tables. Databases that were written before there were revisions have these."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TABLES = sa.MetaData()
sa.Table(
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
sa.Table(
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
sa.Table(
    "item_models",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("imported_stages", sa.BigInteger, nullable=False),
    sa.Column("unit_interval_labels", sa.BigInteger),
)
sa.Table(
    "deleted_items",
    TABLES,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item_id", sa.String(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)


def upgrade() -> None:
    """Create all tables."""
    TABLES.create_all(op.get_bind())
