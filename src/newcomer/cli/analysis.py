"""`newcomer analyse`: plots of a classifier's tasks, or of a click model's item graphs."""

from pathlib import Path
from typing import Annotated

import typer

from newcomer.classes.analysis import analyse as class_findings
from newcomer.cli.items import open_service
from newcomer.cli.models import BackbonePlace, LabelColumn, Strict, TextColumn, open_model
from newcomer.cli.program import app, finish, say, with_progress
from newcomer.data.io.example_sources import training_examples
from newcomer.data.io.log_reader import read_log
from newcomer.errors import SettingError
from newcomer.experiments.report.class_analysis import write_class_analysis
from newcomer.experiments.report.item_analysis import write_item_analysis
from newcomer.items.analysis.item_graphs import analyse as item_findings
from newcomer.items.learner import ItemLearner
from newcomer.registry import LEARNERS
from newcomer.store.folder import Store


@app.command()
def analyse(
    store: Annotated[Path, typer.Argument(help="Folder of the model.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Classifier: labelled examples, for accuracies between tasks; click model: its log, for learning curves.",
        ),
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Item of a click model to show; may be repeated.")
    ] = None,
    states: Annotated[
        str | None, typer.Option("--states", metavar="URL", help="Click model: URL of its state database.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the page, its images and its data.")] = Path(
        "findings"
    ),
    text: TextColumn = "text",
    label: LabelColumn = "label",
    strict: Strict = False,
    backbone: BackbonePlace = None,
) -> None:
    """Plot what a model has learned. SD-LoRA: distances, cosine similarities and residuals of its directions, and with --data of
    all tasks linear interpolations between them. EmerG: item graphs."""
    left_out: list[str] = []
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is not None and issubclass(kind, ItemLearner):
        if backbone:
            raise SettingError(f"--backbone says nothing of {store}, a click model; leave it out")
        model = item_learner(kind, store, states)
        log = read_log(str(data), model.schema) if data else None
        write_item_analysis(with_progress(store.name, item_findings(model, log, item)), out)
    else:
        if item or states:
            raise SettingError(f"--item and --states say nothing of {store}, a classifier; leave them out")
        examples = training_examples(data, text, label, None if strict else left_out) if data else None
        write_class_analysis(with_progress(store.name, class_findings(open_model(store, backbone), examples)), out)
    say(f"{out / 'index.html'}: analysis of {store}")
    finish(left_out)


def item_learner(kind: type[ItemLearner], store: Path, states: str | None) -> ItemLearner:
    """The click model with the states of its items in service, or with the saved ones if it was never in service."""
    if states is None and not (store / "items.db").exists():
        return kind.load(store)
    with open_service(store, states) as service:
        return service.to_learner()
