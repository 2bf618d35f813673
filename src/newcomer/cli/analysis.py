"""The command that draws what a model has learned: a classifier's tasks, or a click model's item graphs."""

from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer

from newcomer.classes.analysis import analyse as class_findings
from newcomer.cli.items import open_live
from newcomer.cli.models import BackbonePlace, LabelColumn, Strict, TextColumn, open_model
from newcomer.cli.program import app, bar, finish, say
from newcomer.data.io.example_sources import lesson
from newcomer.data.io.log_reader import read_log
from newcomer.errors import SettingError
from newcomer.experiments.recipe import LEARNERS
from newcomer.experiments.report.findings import write_findings
from newcomer.experiments.report.item_findings import write_item_findings
from newcomer.items.analysis.item_graphs import analyse as item_findings
from newcomer.items.learner import ItemLearner
from newcomer.settings import Json
from newcomer.store.folder import Store
from newcomer.training.learner import Step


@app.command()
def analyse(
    store: Annotated[Path, typer.Argument(help="The folder of the model.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Examples of a classifier's classes, for accuracy between two tasks; a click model's log, for curves."
        ),
    ] = None,
    item: Annotated[list[str] | None, typer.Option(help="Of a click model: an item to show; may be repeated.")] = None,
    states: Annotated[
        str | None, typer.Option("--states", help="Of a click model: URL of its database of states.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page, its pictures and numbers.")] = Path("findings"),
    text: TextColumn = "text",
    label: LabelColumn = "label",
    strict: Strict = False,
    backbone: BackbonePlace = None,
) -> None:
    """Draw what a model has learned: a classifier's distances, residuals and low-loss paths; a click model's item graphs."""
    left_out: list[str] = []
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is not None and issubclass(kind, ItemLearner):
        if backbone:
            raise SettingError(f"--backbone says nothing of {store}, a click model; leave it out")
        model = _as_it_is(kind, store, states)
        log = read_log(str(data), model.schema) if data else None
        write_item_findings(_followed(store, item_findings(model, log, item)), out)
    else:
        if item or states:
            raise SettingError(f"--item and --states say nothing of {store}, a classifier; leave them out")
        examples = lesson(data, text, label, None if strict else left_out) if data else None
        write_findings(_followed(store, class_findings(open_model(store, backbone), examples)), out)
    say(f"{out / 'index.html'}: what was found in {store}")
    finish(left_out)


def _as_it_is(kind: type[ItemLearner], store: Path, states: str | None) -> ItemLearner:
    """The click model with its items' states in service, or, where it never was in service, those it was saved with."""
    if states is None and not (store / "items.db").exists():
        return kind.load(store)
    with open_live(store, states) as live:
        return live.taken_over()


def _followed(store: Path, look: Generator[Step, None, dict[str, Json]]) -> dict[str, Json]:
    """What a search finds in the end, its steps shown meanwhile."""
    with bar(store.name) as shown:
        try:
            while True:
                shown.follow(next(look))
        except StopIteration as end:
            found: dict[str, Json] = end.value
    return found
