"""What a version of the click model needs before it may be live: its trained items, and the items and events since."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from newcomer.errors import LearnerError
from newcomer.items.serving.service import ItemService
from newcomer.items.serving.trained_items import items_by_stage, trained_item_rows
from newcomer.registry import find_learner
from newcomer.server.click_versions import states_url, version_folder
from newcomer.server.configuration import ServeConfig
from newcomer.server.event_log import FOLDER, LogReader
from newcomer.server.event_rows import event_id_column
from newcomer.server.history import HistoryReader, replay
from newcomer.server.models import ClickModel, ModelsFile
from newcomer.store.folder import Store
from newcomer.store.states import Event
from newcomer.training.learner import Step

EVENTS = "events.parquet"
"""File of a version's folder: the service's events that it was trained on."""


def open_version(folder: Path, states: str) -> ItemService:
    """A version, with its trained items in the database: the events that they were trained on are counted there by their ids."""
    service = ItemService.open(folder, states)
    stages = items_by_stage(service.learner)
    if service.states.imported_stages(service.model) < len(stages):
        events = trained_events(service, folder)
        changes = trained_item_rows(service.learner, [name for names in stages for name in names])
        changes = [replace(one, events=[*one.events, *events.get(one.state.item, [])]) for one in changes]
        service.states.import_stages(service.model, len(stages), changes)
    return service


def trained_events(service: ItemService, folder: Path) -> dict[str, list[Event]]:
    """The service's events that the version in this folder was trained on, by item."""
    if not (folder / EVENTS).exists():
        return {}
    schema, found = service.learner.schema, dict[str, list[Event]]()
    id_column = event_id_column(schema)
    for name, event, label in pl.read_parquet(folder / EVENTS).select(schema.item, id_column, schema.label).iter_rows():
        clicked = label >= schema.clicked_from if schema.clicked_from is not None else label
        found.setdefault(name, []).append(Event(event, 0, int(clicked)))
    return found


def first_items(folder: Path) -> list[str]:
    """Items that the first version was trained on: those that were there before the service."""
    entries = find_learner(Store(folder).manifest().learner).load(folder).entries
    return [name for entry in entries for name in entry.info["items"]]


def prepare(
    config: ServeConfig, first: Path, models: ModelsFile, name: str, report: Callable[[Step], None], live: bool
) -> None:
    """Make a version ready, and then `live`, while the service goes on.

    All of the log is replayed; then the version gets new items and events from the workers, and what came before they knew is
    replayed. A worker looks for versions after it has written the log: each record is replayed, or comes from a worker, or both.
    A version with the weights of one that is ready has its states, and is ready at once.
    """
    with models.change() as content:
        click_model = content.require_click_model()
        version = click_model.versions[name]
        if any(one.model == version.model and one.status == "ready" for one in click_model.versions.values()):
            _make_ready(click_model, name, live)
            return
    reader, numbers = LogReader(config.own_folder / FOLDER), iter(range(1, 10**9))
    with open_version(version_folder(config, first, name), states_url(config, first)) as service:
        history = HistoryReader(service.learner.schema, first_items(first))

        def catch_up() -> bool:
            """Replay what is new; whether an item was deleted or got other features."""
            number, part = next(numbers), history.read(reader.read())
            return replay(service, part, lambda done, of: report(Step(f"replay {number}", done, of)))

        catch_up()
        with models.change() as content:
            version = content.require_click_model().versions[name]
            if version.status == "trained":
                version.status = "preparing"
        catch_up()
        while catch_up():  # what was replayed may have met what a worker did since
            pass
    with models.change() as content:
        click_model = content.require_click_model()
        if click_model.versions[name].status == "trained":
            raise LearnerError(f"version '{name}': a worker could not open it; see the service's log")
        _make_ready(click_model, name, live)


def _make_ready(click_model: ClickModel, name: str, live: bool) -> None:
    click_model.versions[name].status = "ready"
    if live:
        click_model.go_live(name)
