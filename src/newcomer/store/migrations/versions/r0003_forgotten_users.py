"""Users who are forgotten; and from here on the values of an event are stored with its user's digest."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table of forgotten users; on PostgreSQL digests compare by bytes, as ids do."""
    digest = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")
    op.create_table("forgotten_users", sa.Column("user_digest", digest, primary_key=True))
