"""Upgrades of the tables of a SQL database: one script a revision, run by Alembic."""

from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from newcomer.store.migrations.versions.r0001_tables import TABLES as FIRST_TABLES
from newcomer.store.sql_tables import REVISION

__all__ = ["FIRST_TABLES", "SCRIPTS", "upgrade"]

SCRIPTS = ScriptDirectory(str(Path(__file__).parent))


def upgrade(connection: sa.Connection, revision: str | None) -> None:
    """Upgrade tables of this revision, or none, to the latest one, within the connection's transaction."""
    REVISION.create(connection, checkfirst=True)
    scripts = list(SCRIPTS.iterate_revisions("head", revision or "base"))
    with Operations.context(MigrationContext.configure(connection)):
        for script in reversed(scripts):
            script.module.upgrade()
    connection.execute(sa.delete(REVISION))
    connection.execute(sa.insert(REVISION).values(version_num=SCRIPTS.get_current_head()))
