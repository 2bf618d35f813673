"""The tables of a SQL database when it is opened: created, upgraded, or refused.

The table `item_states_version` has the revision of the tables. A database without it was written before there were revisions, and
has the first one. Upgrades are in `migrations`; Alembic is imported only where there is something to upgrade.
"""

import sqlalchemy as sa

from newcomer.errors import StoreError
from newcomer.store.sql_engine import lock
from newcomer.store.sql_tables import REVISION, TABLES

REVISIONS = ("0001", "0002", "0003")
"""Known revisions, the oldest first."""
FIRST, HEAD = REVISIONS[0], REVISIONS[-1]

LOCK = 0x6E657763_6F6D6572
"""Number of the lock under which tables are created and upgraded."""

COLUMNS = {
    "sqlite": """
        SELECT t.name, c.name, (
            SELECT min(i.coll) FROM pragma_index_list(t.name) l, pragma_index_xinfo(l.name) i
            WHERE i.name = c.name AND i.key AND i.coll <> 'BINARY'
        ) FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'""",
    "postgresql": """
        SELECT t.relname, a.attname, CASE WHEN l.collname <> 'C' THEN l.collname END
        FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE t.relkind IN ('r', 'p') AND pg_table_is_visible(t.oid) AND a.attnum > 0 AND NOT a.attisdropped""",
}
"""Tables, their columns, and the collation by which a column compares if it is not by bytes."""


def prepare(engine: sa.Engine, shown: str, read_only: bool) -> None:
    """Create the tables, or upgrade them to the revision of this version of newcomer, whatever other processes do meanwhile.

    Raises StoreError for tables that are newer, of another layout or that compare ids otherwise than by bytes, and for tables that
    would have to be created or upgraded where nothing can be written.
    """
    with engine.connect() as connection:
        revision = _revision(connection, shown)
    if revision == HEAD:
        return
    if read_only:
        older = (
            "has no tables yet" if revision is None else f"has tables of an earlier version of newcomer ({revision})"
        )
        raise StoreError(f"{shown}: {older}, and cannot be written; open it once where it can be")
    with engine.execution_options(writes=True).begin() as connection:
        lock(connection, LOCK)
        revision = _revision(connection, shown)  # another process may have been first
        if revision is None:
            TABLES.create_all(connection)
            connection.execute(sa.insert(REVISION).values(version_num=HEAD))
        elif revision != HEAD:
            from newcomer.store.migrations import upgrade

            upgrade(connection, None if revision == FIRST else revision)  # not all of the first tables may be there
        _revision(connection, shown)


def _revision(connection: sa.Connection, shown: str) -> str | None:
    """The revision of the tables; None without tables."""
    columns: dict[str, dict[str, str | None]] = {}
    for table, column, collation in connection.exec_driver_sql(COLUMNS[connection.dialect.name]):
        columns.setdefault(table, {})[column] = collation
    if REVISION.name in columns:
        revision = str(connection.scalar(sa.select(REVISION.c.version_num)))
        if revision not in REVISIONS:
            raise StoreError(
                f"{shown}: its tables are of a later version of newcomer ({revision}; this one knows {HEAD}); update newcomer"
            )
    elif any(table in columns for table in TABLES.tables):
        revision = FIRST
    else:
        return None
    if revision == HEAD:
        if missing := [table for table in TABLES.tables if table not in columns]:
            raise StoreError(f"{shown}: table '{missing[0]}' is gone; restore the database from a copy")
        _require(TABLES, columns, shown)
        _require_bytes(columns, shown)
    else:
        from newcomer.store.migrations import FIRST_TABLES

        _require(FIRST_TABLES, columns, shown)
    return revision


def _require(tables: sa.MetaData, columns: dict[str, dict[str, str | None]], shown: str) -> None:
    """Raises StoreError for a table of another layout."""
    for table in (table for table in tables.sorted_tables if table.name in columns):
        if missing := [column.name for column in table.columns if column.name not in columns[table.name]]:
            raise StoreError(
                f"{shown}: table '{table.name}' has no column '{missing[0]}': it was written by another version of newcomer; give "
                "another database (--states URL), and send the events again"
            )


def _require_bytes(columns: dict[str, dict[str, str | None]], shown: str) -> None:
    """Raises StoreError where two different ids may count as equal."""
    for column in (column for table in TABLES.sorted_tables for column in table.primary_key):
        if (collation := columns[column.table.name][column.name]) is not None:
            raise StoreError(
                f"{shown}: column '{column.name}' of table '{column.table.name}' compares by collation '{collation}' and not by "
                "bytes, so that two ids may count as one; give another database (--states URL)"
            )
