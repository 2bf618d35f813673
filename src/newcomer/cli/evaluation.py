"""`newcomer evaluate`: how good a model is on labelled data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from newcomer.classes.learner import ClassLearner
from newcomer.cli.aligned import print_table
from newcomer.cli.analysis import item_learner
from newcomer.cli.models import BackbonePlace, LabelColumn, Strict, TextColumn, decodable, open_model
from newcomer.cli.program import app, bar, finish, say
from newcomer.data.click_log import ClickLog
from newcomer.data.examples import Examples
from newcomer.data.io.example_sources import training_examples, training_part
from newcomer.data.io.log_reader import read_log
from newcomer.errors import DataError, SettingError
from newcomer.items.learner import ItemLearner
from newcomer.metrics.calibration import worse_than_constant
from newcomer.metrics.ranking import click_scores
from newcomer.printable import counted, printable_json
from newcomer.registry import LEARNERS
from newcomer.settings import Json
from newcomer.store.folder import Store
from newcomer.training.learner import Step


@app.command()
def evaluate(
    store: Annotated[Path, typer.Argument(help="Folder of the model.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Classifier: image folder with one subfolder per class, or a CSV or parquet table of texts; click model: log of "
            "events that it was neither trained nor warmed up on."
        ),
    ],
    states: Annotated[
        str | None, typer.Option("--states", metavar="URL", help="Click model: URL of its state database.")
    ] = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    strict: Strict = False,
    backbone: BackbonePlace = None,
) -> None:
    """Measure a model on labelled data. Classifier: accuracy among all classes, overall and of each class. Click model: AUC, log
    loss and calibration, beside those of a constant, the click rate of the data. Unknown classes and items are skipped and
    reported."""
    left_out: list[str] = []
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is not None and issubclass(kind, ItemLearner):
        if backbone:
            raise SettingError(f"--backbone says nothing of {store}, a click model; leave it out")
        model = item_learner(kind, store, states)
        log = read_log(data, model.schema, items=False)
        model.encoder.require_labels(log, data)
        log = _known_items(model, log, data, left_out)
        _require_none(left_out, strict)
        _show_clicks(store, model, log, json_)
    else:
        if states:
            raise SettingError(f"--states says nothing of {store}, a classifier; leave it out")
        classifier = open_model(store, backbone)
        examples = _known_classes(
            classifier, _examples(classifier, Path(data), text, label, left_out, strict), left_out
        )
        _require_none(left_out, strict)
        _show_classes(store, dict(_by_class(store, classifier, examples)), json_)
    finish(left_out)


def _require_none(left_out: list[str], strict: bool) -> None:
    if strict and left_out:
        raise DataError(left_out[0])


def _examples(model: ClassLearner, data: Path, text: str, label: str, left_out: list[str], strict: bool) -> Examples:
    """Raises DataError for a folder with `train/`: which part is to be measured is not clear."""
    if part := training_part(data):
        raise DataError(f"{data}: holds {part.name}/, on which models are trained; give the folder of the test images")
    found = training_examples(data, text, label, None if strict else left_out)
    return decodable(found, left_out, strict) if model.backbone.reads_images else found


def _known_classes(model: ClassLearner, examples: Examples, left_out: list[str]) -> Examples:
    """The examples of classes that the model knows. Raises DataError if there are none."""
    unknown = [name for name in examples.classes if name not in model.classes]
    for name in unknown:
        count = counted(sum(label == name for label in examples.labels), "example")
        left_out.append(f"class '{name}', {count}: the model does not know it")
    rows = [row for row, label in enumerate(examples.labels) if label not in unknown]
    if not rows:
        raise DataError(left_out[-1])
    return examples.select(rows) if unknown else examples


def _by_class(store: Path, model: ClassLearner, examples: Examples) -> Iterator[tuple[str, dict[str, float]]]:
    """What `evaluate` says of each class."""
    with bar(store.name, stays=False) as shown:
        for number, name in enumerate(examples.classes, 1):
            rows = [row for row, label in enumerate(examples.labels) if label == name]
            yield name, model.evaluate(examples.select(rows))
            shown.follow(Step("classes", number, len(examples.classes)))


def _show_classes(store: Path, classes: Mapping[str, Mapping[str, float]], json_: bool) -> None:
    count = int(sum(found["examples"] for found in classes.values()))
    accuracy = sum(found["accuracy"] * found["examples"] for found in classes.values()) / count
    if json_:
        parts: dict[str, Json] = {
            name: {**found, "examples": int(found["examples"])} for name, found in classes.items()
        }
        print(printable_json({"accuracy": accuracy, "examples": count, "classes": parts}))
        return
    say(f"{store}: accuracy {100 * accuracy:.1f} % of {counted(count, 'example')}")
    rows = [(name, f"{100 * found['accuracy']:.1f}", int(found["examples"])) for name, found in classes.items()]
    print_table(("class", "accuracy, %", "examples"), rows)


def _known_items(model: ItemLearner, log: ClickLog, where: str, left_out: list[str]) -> ClickLog:
    """The events of items that the model knows. Raises DataError if there are none."""
    known = np.array([name in model.known for name in log.items.ids])[log.item]
    for number in np.unique(log.item[~known]):
        count = counted(int((log.item == number).sum()), "event")
        left_out.append(f"{where}: item '{log.items.ids[number]}', {count}: the model does not know it; add it first")
    if not known.any():
        raise DataError(left_out[0])
    return log if known.all() else log.take(np.flatnonzero(known))


def _show_clicks(store: Path, model: ItemLearner, log: ClickLog, json_: bool) -> None:
    scores = model.evaluate(log)
    rate = float(np.average(log.label, weights=model.event_weights(log)))
    negative_rate = model.probabilities.negative_rate
    constant = click_scores(log.item, log.label, np.full(len(log), rate), log.user, log.weight, negative_rate)
    if json_:
        found = {
            name: {key: _number(value) for key, value in of.items()}
            for name, of in (("model", scores), ("constant", constant))
        }
        info: dict[str, Json] = {"events": len(log), "items": len(np.unique(log.item)), "click_rate": rate}
        print(printable_json(info | found, allow_nan=False))
        return
    items = counted(len(np.unique(log.item)), "item")
    say(f"{store}: {counted(len(log), 'event')} of {items}, {100 * rate:.1f} % of them clicks")
    rows = [(name, _shown(value), _shown(constant[name])) for name, value in scores.items()]
    print_table(("score", "model", "click rate as a constant"), rows)
    if worse_than_constant(scores):
        say("log loss: worse than that of a constant, the click rate; use the order of these scores, not their values")


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _shown(value: float) -> str | None:
    return f"{value:.4f}" if np.isfinite(value) else None
