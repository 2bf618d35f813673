"""Commands that teach, ask and look after one model: the life of a store."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.cli.answers import Said, print_json, print_tables
from newcomer.cli.items import forget_items
from newcomer.cli.program import app, bar, finish, name_left_out, say, shorten, stoppable
from newcomer.data.examples import Examples
from newcomer.data.inputs import Asked
from newcomer.data.io.example_sources import lesson, pictures, texts
from newcomer.data.io.image_folders import PictureFiles, damaged
from newcomer.errors import DataError, NewcomerError, SettingError, StoreError, nearest
from newcomer.experiments.recipe import LEARNERS, parse_change
from newcomer.export import FORMS
from newcomer.settings import Json, fill
from newcomer.store.folder import Store
from newcomer.streams.stage import Stage
from newcomer.training.learner import Step
from newcomer.training.processes import is_first

Folder = Annotated[Path, typer.Argument(help="The folder of the model.")]
TextColumn = Annotated[str, typer.Option("--text", help="Column of a table that holds the texts.")]
LabelColumn = Annotated[str, typer.Option("--label", help="Column of a table that holds the classes.")]
Strict = Annotated[bool, typer.Option("--strict", help="Do nothing where an input cannot be read.")]
State = Annotated[int | None, typer.Option("--stages", help="Use the state after so many stages.")]

BackbonePlace = Annotated[
    str | None,
    typer.Option("--backbone", help="Where the model's backbone lies now: a folder, or its name on the hub."),
]


@app.command()
def learn(
    store: Folder,
    data: Annotated[Path, typer.Argument(help="Class folders of pictures, or a CSV or parquet table of texts.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="A folder or a name on the hub: of a new model, or where a known one's backbone lies now."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting: rank=4, backbone.size=112.")] = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    strict: Strict = False,
) -> None:
    """Teach a model new classes, or show it more of known ones; the first time it is made. Nothing is stored of the data but
    statistics of each class. What cannot be read is left out and named."""
    settings, of_backbone = _changes(set_ or [])
    left_out: list[str] = []
    with stoppable("the model is what it was; the same command starts the lesson again"), _held(store):
        examples = _lesson(data, text, label, left_out, strict)
        known = Store(store).exists()
        if known and of_backbone:
            raise SettingError(
                f"{store}: backbone.{next(iter(of_backbone))}: the settings of a model's backbone cannot change; leave it out"
            )
        model = open_model(store, backbone, **settings) if known else _new(store, backbone, settings, of_backbone)
        if model.backbone.pictures:
            examples = _whole(examples, left_out, strict)
        say(_announced(model, examples))
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
    say(f"{store}: {stage.name} learned, {len(model.classes)} classes{told}")
    finish(left_out)


@app.command()
def predict(
    store: Folder,
    inputs: Annotated[
        list[str],
        typer.Argument(help="Pictures or folders of them; texts, files of them (.txt, .jsonl, .csv, .parquet) or -"),
    ],
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
    strict: Strict = False,
    backbone: BackbonePlace = None,
) -> None:
    """The likeliest classes of pictures or texts, with their probabilities, as they are found. What cannot be read is left out
    and named."""
    model = open_model(store, backbone, stages=stages)
    asked = pictures(inputs) if model.backbone.pictures else texts(inputs, text)
    if strict:
        _require_whole(asked)
    left_out: list[str] = []
    said = _watched(_said(model, asked, top, reject), left_out)
    if json_:
        print_json(said, reject is not None)
    else:
        print_tables(said)
    if len(left_out) == len(asked):
        raise _nothing_of(left_out)
    finish(left_out)


@app.command()
def forget(
    store: Folder,
    class_: Annotated[str | None, typer.Option("--class", help="Of a classifier: the class to offer no more.")] = None,
    item: Annotated[list[str] | None, typer.Option("--item", help="Of a click model: the item to delete.")] = None,
    states: Annotated[
        str | None, typer.Option("--states", help="Of a click model: URL of its database of states.")
    ] = None,
    backbone: BackbonePlace = None,
) -> None:
    """Offer a class no more, or delete items of a click model. What they did to the shared weights remains; earlier states of a
    classifier stay in the store."""
    if (class_ is None) == (not item):
        raise SettingError(f"{store}: give --class NAME of a classifier, or --item ID of a click model")
    if class_ is not None:
        _forget_class(store, class_, backbone)
    else:
        forget_items(store, item or [], states)


def _forget_class(store: Path, class_: str, backbone: str | None) -> None:
    with _held(store):
        model = open_model(store, backbone).forget(class_)
        model.save(store)
    say(
        f"{store}: '{class_}' is offered no more, {len(model.classes)} classes are left. Its mean and its row of the head are "
        "gone; what its examples did to the adapted weights and to the covariance that all classes share remains, and so do "
        "the earlier states of this store."
    )


@app.command()
def checkout(
    store: Folder,
    stages: Annotated[int, typer.Option(help="How many of its stages to take.")],
    out: Annotated[Path, typer.Option(help="Folder for the model as it was then.")],
) -> None:
    """Make a model of its own from an earlier state of a store; the store stays as it is."""
    Store(store).checkout(stages, out)
    say(f"{out}: the first {stages} stages of {store}")


@app.command()
def export(
    store: Folder,
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not hold anything yet.")],
    to: Annotated[str, typer.Option(help=f"The form: {', '.join(FORMS)}.")],
    stages: State = None,
    backbone: BackbonePlace = None,
) -> None:
    """Write a model in a form that other libraries load without newcomer."""
    if to not in FORMS:
        raise SettingError(f"--to {to}: no such form; {nearest(to, FORMS)}")
    FORMS[to](open_model(store, backbone, stages=stages), out)
    say(f"{out}: {store} for {to}; {out / 'README.md'} says how to load it")


def _said(model: ClassLearner, asked: Sequence[Asked], top: int, reject: float | None) -> Iterator[Said]:
    """What the model says of each thing in turn, or what is wrong with it."""
    answers = model.answers([one.input for one in asked if not one.problem], top=top, reject=reject)
    for one in asked:
        answer = one.problem or next(answers)
        if isinstance(answer, NewcomerError):
            answer = str(answer)
        yield one.name, answer


def _watched(said: Iterator[Said], left_out: list[str]) -> Iterator[Said]:
    """The same; what is wrong is noted in `left_out` on the way."""
    for name, answer in said:
        if isinstance(answer, str):
            left_out.append(answer)
        yield name, answer


def _require_whole(asked: Sequence[Asked]) -> None:
    """Raises DataError for the first input that cannot be read."""
    for one in asked:
        if one.problem:
            raise DataError(one.problem)
    for problem in damaged([one.input for one in asked if isinstance(one.input, Path)]):
        if problem:
            raise DataError(problem)


def _nothing_of(left_out: Sequence[str]) -> DataError:
    """The error where all that was given is left out; of several, each is named on stderr."""
    if len(left_out) == 1:
        return DataError(left_out[0])
    name_left_out(left_out)
    return DataError(f"none of the {len(left_out)} inputs can be read")


def _lesson(data: Path, text: str, label: str, left_out: list[str], strict: bool) -> Examples:
    """What there is to learn from; what is left out is named on stderr where nothing remains."""
    try:
        return lesson(data, text, label, None if strict else left_out)
    except DataError:
        name_left_out(left_out)
        raise


def _whole(examples: Examples, left_out: list[str], strict: bool) -> Examples:
    """Those of the examples whose pictures can be decoded to their end; the others are named in `left_out`.

    Raises DataError where none is left, and if `strict` for the first damaged one.
    """
    if not isinstance(examples.inputs, PictureFiles):
        return examples
    right = []
    with bar("pictures") as shown:
        for place, problem in enumerate(damaged(examples.inputs.paths)):
            shown.follow(Step("checked", place + 1, len(examples)))
            if problem is None:
                right.append(place)
            elif strict:
                raise DataError(problem)
            else:
                left_out.append(problem)
    if not right:
        raise _nothing_of(left_out)
    return examples if len(right) == len(examples) else examples.at(right)


def _held(store: Path) -> AbstractContextManager[None]:
    """Nobody else writes the store; of several processes that learn together the first one sees to it."""
    return Store(store).held() if is_first() else nullcontext()


def open_model(
    store: Path, backbone: str | None = None, *, stages: int | None = None, **settings: Json
) -> ClassLearner:
    """The classifier in this folder, with these settings changed, on a backbone that lies where it is named, or else here.

    Raises StoreError for a store of another family.
    """
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is None or not issubclass(kind, ClassLearner):
        raise StoreError(
            f"{store}: holds a model of '{Store(store).manifest().learner}', which classifies nothing; for a click model use "
            "`newcomer add`, `score` and `warm`"
        )
    return kind.load(store, stages=stages, **({} if backbone is None else {"backbone": backbone}), **settings)


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
