"""Deletion of items in all versions of a click model, recorded in the event log."""

from collections.abc import Sequence
from contextlib import suppress

from newcomer.data.canonical import canonical_name
from newcomer.errors import DataError
from newcomer.server.click_versions import ClickVersions
from newcomer.server.event_log import EventLog


def delete_items(versions: ClickVersions, log: EventLog, items: Sequence[str]) -> list[str]:
    """Delete these items and their events, so that no later version has them either. Returns their ids.

    Raises DataError, and deletes nothing, for an item that the live version does not have; StoreError if the log cannot be written.
    """
    names, serving = [canonical_name(item) or item for item in items], versions.latest()
    there = serving.live.states.headers(serving.live.model, names)
    for name in names:
        if name not in there:
            raise serving.live.not_known(name)
    log.append("deletion", names)
    for service in (serving.live, *serving.others.values()):
        for name in names:
            with suppress(DataError):  # somebody else was faster, or this version never had it
                service.forget([name])
    return names
