"""Commands that teach, ask and look after one model: the life of a store."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import Answer, ClassLearner
from newcomer.classes.sd_lora import SDLoRA
from newcomer.cli.items import forget_items
from newcomer.cli.program import app, bar, console, shorten, stoppable
from newcomer.data.examples import Examples
from newcomer.data.given import lesson, pictures, texts
from newcomer.errors import SettingError, StoreError, nearest
from newcomer.export import FORMS
from newcomer.recipe import LEARNERS, parse_change
from newcomer.settings import Json, fill
from newcomer.store.folder import Store
from newcomer.streams.stage import Stage
from newcomer.training.processes import is_first

Folder = Annotated[Path, typer.Argument(help="The folder of the model.")]
TextColumn = Annotated[str, typer.Option("--text", help="Column of a table that holds the texts.")]
LabelColumn = Annotated[str, typer.Option("--label", help="Column of a table that holds the classes.")]
State = Annotated[int | None, typer.Option("--stages", help="Use the state after so many stages.")]


@app.command()
def learn(
    store: Folder,
    data: Annotated[Path, typer.Argument(help="Class folders of pictures, or a CSV or parquet table of texts.")],
    backbone: Annotated[str | None, typer.Option(help="For a new model: a folder or a name on the hub.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting: rank=4, backbone.size=112.")] = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
) -> None:
    """Teach a model new classes, or show it more of known ones; the first time it is made. Nothing is stored of the data but
    statistics of each class."""
    settings, of_backbone = _changes(set_ or [])
    with stoppable("the model is what it was; the same command starts the lesson again"), _held(store):
        examples = lesson(data, text, label)
        model = open_model(store, **settings) if Store(store).exists() else _new(store, backbone, settings, of_backbone)
        if Store(store).exists() and (backbone or of_backbone):
            raise SettingError(
                f"{store}: stands on {model.backbone.name}; a model's backbone and its settings cannot change"
            )
        console.print(_announced(model, examples), highlight=False, soft_wrap=True)
        stage: Stage[Examples, Examples] = Stage(model.next_stage, examples, {})
        with bar(store.name) as shown:
            for step in model.study(stage):
                shown.follow(step)
            model.save(store)
            shown.say(description="saved")
    score = model.entries[-1].facts.get("held-out accuracy")
    told = (
        "" if score is None else f"; of these examples, held out from the head, {100 * score:.0f} % were answered right"
    )
    console.print(f"{store}: {stage.name} learned, {len(model.classes)} classes{told}", highlight=False, soft_wrap=True)


@app.command()
def predict(
    store: Folder,
    inputs: Annotated[list[str], typer.Argument(help="Pictures or folders of them; texts or tables of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    reject: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Say what belongs to no known class, at this share of known ones refused by mistake."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line in place of a table.")] = False,
    text: TextColumn = "text",
    stages: State = None,
) -> None:
    """The likeliest classes of pictures or texts, with their probabilities."""
    model = open_model(store, stages=stages)
    names, read = pictures(inputs) if model.backbone.pictures else texts(inputs, text)
    answers = model.answer(read, top=top, reject=reject)
    if json_:
        for name, answer in zip(names, answers, strict=True):
            print(json.dumps(_as_json(name, answer, reject is not None), ensure_ascii=False))
        return
    table = RichTable("input", "class", "probability", "then")
    for name, answer in zip(names, answers, strict=True):
        first, *others = zip(answer.classes, answer.probabilities, strict=True)
        then = ", ".join(f"{klass} {share:.2f}" for klass, share in others)
        klass = first[0] if answer.known else f"none known (nearest: {first[0]})"
        table.add_row(name if len(name) <= 60 else "…" + name[-59:], klass, f"{first[1]:.2f}", then)
    console.print(table)


@app.command()
def forget(
    store: Folder,
    class_: Annotated[str | None, typer.Option("--class", help="Of a classifier: the class to offer no more.")] = None,
    item: Annotated[list[str] | None, typer.Option("--item", help="Of a click model: the item to delete.")] = None,
    states: Annotated[
        str | None, typer.Option("--states", help="Of a click model: URL of its database of states.")
    ] = None,
) -> None:
    """Offer a class no more, or delete items of a click model. What they did to the shared weights remains; earlier states of a
    classifier stay in the store."""
    if (class_ is None) == (not item):
        raise SettingError(f"{store}: give --class NAME of a classifier, or --item ID of a click model")
    if class_ is not None:
        _forget_class(store, class_)
    else:
        forget_items(store, item or [], states)


def _forget_class(store: Path, class_: str) -> None:
    with _held(store):
        model = open_model(store).forget(class_)
        model.save(store)
    console.print(
        f"{store}: '{class_}' is offered no more, {len(model.classes)} classes are left. Its mean and its row of the head are "
        "gone; what its examples did to the adapted weights and to the covariance that all classes share remains, and so do "
        "the earlier states of this store.",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def checkout(
    store: Folder,
    stages: Annotated[int, typer.Option(help="How many of its stages to take.")],
    out: Annotated[Path, typer.Option(help="Folder for the model as it was then.")],
) -> None:
    """Make a model of its own from an earlier state of a store; the store stays as it is."""
    Store(store).checkout(stages, out)
    console.print(f"{out}: the first {stages} stages of {store}", highlight=False, soft_wrap=True)


@app.command()
def export(
    store: Folder,
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not hold anything yet.")],
    to: Annotated[str, typer.Option(help=f"The form: {', '.join(FORMS)}.")],
    stages: State = None,
) -> None:
    """Write a model in a form that other libraries load without newcomer."""
    if to not in FORMS:
        raise SettingError(f"--to {to}: no such form; {nearest(to, FORMS)}")
    FORMS[to](open_model(store, stages=stages), out)
    console.print(f"{out}: {store} for {to}; {out / 'README.md'} says how to load it", highlight=False, soft_wrap=True)


def _held(store: Path) -> AbstractContextManager[None]:
    """Nobody else writes the store; of several processes that learn together the first one sees to it."""
    return Store(store).held() if is_first() else nullcontext()


def open_model(store: Path, *, stages: int | None = None, **settings: Json) -> ClassLearner:
    """The classifier in this folder, with these settings changed.

    Raises StoreError for a store of another family.
    """
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is None or not issubclass(kind, ClassLearner):
        raise StoreError(
            f"{store}: holds a model of '{Store(store).manifest().learner}', which classifies nothing; for a click model use "
            "`newcomer add`, `score` and `warm`"
        )
    return kind.load(store, stages=stages, **settings)


def _new(store: Path, backbone: str | None, settings: dict[str, Json], of_backbone: dict[str, Json]) -> ClassLearner:
    if backbone is None:
        raise SettingError(
            f"{store}: no model here yet; say with --backbone what to teach, e.g. google/vit-base-patch16-224 for pictures, "
            "sentence-transformers/all-MiniLM-L6-v2 for texts"
        )
    filled = fill(SDLoRA, settings, "learner", provided=["backbone"])
    return SDLoRA(Backbone(**fill(Backbone, {"name": backbone, **of_backbone}, "backbone")), **filled)


def _changes(given: list[str]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Settings of the learner, and those of its backbone."""
    pairs: list[tuple[str, Any]] = [parse_change(change) for change in given]
    prefix = "backbone."
    return (
        {key: value for key, value in pairs if not key.startswith(prefix)},
        {key.removeprefix(prefix): value for key, value in pairs if key.startswith(prefix)},
    )


def _announced(model: ClassLearner, examples: Examples) -> str:
    """What is about to happen."""
    new = [name for name in examples.classes if name not in model.classes]
    known = [name for name in examples.classes if name in model.classes]
    said = f"{len(examples)} examples"
    if new:
        said += f"; new classes: {shorten(', '.join(new), 200)}"
    if known:
        said += f"; more of known classes: {shorten(', '.join(known), 200)}"
    if not new:
        return said + ". They count towards what is remembered of their classes; no weight is adapted."
    if len(examples.classes) == 1:
        return said + ". A single class tells nothing apart: it is remembered, and no weight is adapted."
    return said


def _as_json(name: str, answer: Answer, judged: bool) -> dict[str, Json]:
    best = [
        {"class": klass, "probability": share}
        for klass, share in zip(answer.classes, answer.probabilities, strict=True)
    ]
    return {"input": name, "classes": best} | ({"known": answer.known} if judged else {})
