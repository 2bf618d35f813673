"""Forgotten users in the service's own files: whose a row is, and the files without their rows."""

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from newcomer.data.canonical import canonical_name
from newcomer.data.schema import Schema
from newcomer.errors import DataError, StoreError
from newcomer.items.serving.results import ForgottenUser
from newcomer.items.serving.service import ItemService
from newcomer.items.serving.user_digests import user_digest
from newcomer.server.click_versions import ClickVersions, states_url, version_folder
from newcomer.server.event_log import FOLDER, erase_events
from newcomer.server.event_rows import Row
from newcomer.server.preparation import EVENTS
from newcomer.store.states import ItemStates
from newcomer.store.writing import write_whole


def user_of(row: Row, schema: Schema) -> str | None:
    """Digest of the user of a row; None for nobody in particular, and for what is no id."""
    try:
        return user_digest(canonical_name(row.get(schema.user)) or "")
    except DataError:
        return None


def of_forgotten(rows: Sequence[Row], schema: Schema, states: ItemStates) -> set[int]:
    """Numbers of the rows of forgotten users."""
    users = {n: user for n, row in enumerate(rows) if (user := user_of(row, schema)) is not None}
    gone = states.forgotten_users(set(users.values()))
    return {n for n, user in users.items() if user in gone}


def forget_user(versions: ClickVersions, user: str) -> tuple[dict[str, ForgottenUser], int]:
    """Forget a user in all versions, in their tables of events and in the event log.

    Returned are the results by version, and the number of lines of the log. Raises DataError for what is no id, StoreError for what
    cannot be opened or written; the same call does the rest.
    """
    config, first = versions.config, versions.folder
    serving, done = versions.latest(), dict[str, ForgottenUser]()
    click_model = versions.models.read().require_click_model()
    states, schema = serving.live.states, serving.live.learner.schema
    is_open = {service.model: service for service in (serving.live, *serving.others.values())}
    for name in sorted(click_model.versions, key=lambda name: name != click_model.live):
        service = is_open.get(click_model.versions[name].model)
        if service is not None:
            done[name] = service.forget_user(user)
            continue
        with ItemService.open(version_folder(config, first, name), states_url(config, first)) as retired:
            if retired.states.imported_stages(retired.model):  # else the database has nothing of this version
                done[name] = retired.forget_user(user)
    lines = erase_from_log(config.own_folder / FOLDER, schema, states, [{schema.user: user}])
    later = versions.models.read().require_click_model()  # a version that is not in it yet finds the user forgotten
    for name in later.versions:
        erase_from_table(version_folder(config, first, name) / EVENTS, schema, states)
    return done, lines


def erase_from_log(folder: Path, schema: Schema, states: ItemStates, rows: Sequence[Row]) -> int:
    """Blank the events and impressions of those users of these rows who are forgotten; returns their number."""
    users = {user_of(rows[n], schema) for n in of_forgotten(rows, schema, states)}
    return erase_events(folder, lambda row: user_of(row, schema) in users) if users else 0


def erase_from_table(path: Path, schema: Schema, states: ItemStates) -> int:
    """Write a table of events without those of forgotten users; returns their number."""
    if not path.exists():
        return 0
    try:
        table = pl.read_parquet(path)
        gone = of_forgotten(table.select(schema.user).to_dicts(), schema, states)
        if gone:
            content = io.BytesIO()
            table.filter(pl.Series([n not in gone for n in range(len(table))])).write_parquet(content)
            write_whole(path, content.getvalue())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); forget the user again") from None
    return len(gone)
