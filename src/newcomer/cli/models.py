"""Commands for one classifier: learn, predict, forget, checkout, export."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_history import NEW_CLASSES
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.cli.items import forget_items, forget_users
from newcomer.cli.prediction_output import Answer, print_json, print_tables
from newcomer.cli.program import Track, app, bar, finish, name_left_out, say, say_logs, shorten, stoppable
from newcomer.data.class_names import class_name, matching
from newcomer.data.examples import Examples
from newcomer.data.inputs import Query
from newcomer.data.io.example_sources import image_queries, text_queries, training_examples, training_part
from newcomer.data.io.image_folders import ImageFiles, decoding_problems
from newcomer.errors import DataError, NewcomerError, SettingError, StoreError, nearest
from newcomer.experiments.tracking import find_tracker
from newcomer.experiments.tracking import track as tracked
from newcomer.export import FORMS
from newcomer.printable import counted, stage_title
from newcomer.registry import CLASSES, LEARNERS, find_learner
from newcomer.settings import Json, changes, fill, parse_change
from newcomer.store.folder import Store
from newcomer.streams.stage import Stage
from newcomer.training.learner import Step, locked

Folder = Annotated[Path, typer.Argument(help="Folder of the model.")]
TextColumn = Annotated[str, typer.Option("--text", metavar="COLUMN", help="Column with the texts.")]
LabelColumn = Annotated[str, typer.Option("--label", metavar="COLUMN", help="Column with the labels.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail on the first unreadable input.")]
State = Annotated[int | None, typer.Option("--stages", metavar="N", help="Use the model after this many stages.")]

BackbonePlace = Annotated[
    str | None,
    typer.Option("--backbone", metavar="NAME", help="Folder or hub name of the model's backbone, if it has moved."),
]

HINT = "hint: for texts, `--learner frozen --head kernel` is often as accurate and trains no weights"


@app.command()
def learn(
    store: Folder,
    data: Annotated[
        Path | None,
        typer.Argument(help="Image folder with one subfolder per class, or a CSV or parquet table of texts."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Folder or hub name of the backbone; needed for a new model, or if it has moved."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as rank=4 or backbone.size=112."),
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Method of a new model: {', '.join(CLASSES)}; by default sd-lora."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Classifier head; the same as --set head=NAME.")
    ] = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Learn these classes alone, by name or pattern such as 'n01*'; may be repeated.",
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Images or texts of any classes, which only say how the features of old classes change with training.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Instead of examples: learn a class by its name, or as NAME=TEXT by a text about it; may be repeated.",
        ),
    ] = None,
    strict: Strict = False,
    track: Track = None,
) -> None:
    """Learn new classes, or add examples of known ones. Creates the model if there is none. Only class statistics are stored, no
    examples. Unreadable inputs are skipped and reported."""
    if data is None or name:
        changed = [option or None for option in (strict, text != "text", label != "label")]
        _learn_names(store, name or [], backbone, [data, set_, learner, head, class_, unlabelled, track, *changed])
        return
    settings, of_backbone = _changes([*(set_ or []), *([f"head={head}"] if head else [])])
    tracker = find_tracker(track)
    left_out: list[str] = []
    with stoppable("the model is unchanged; the same command starts again"), locked(store):
        examples = _read_examples(data, text, label, left_out, strict)
        if class_:
            examples = _of_classes(examples, class_, data)
        known = Store(store).exists()
        if known and of_backbone:
            raise SettingError(
                f"{store}: backbone.{next(iter(of_backbone))}: the settings of a model's backbone cannot change; leave it out"
            )
        if known:
            _require_same_learner(store, learner)
            saved = Store(store).manifest().settings
            model = open_model(store, backbone, **settings)
            _name_changes(store, saved, {key: model.settings[key] for key in settings})
        else:
            model = _new(store, backbone, learner, settings, of_backbone)
        if model.backbone.reads_images:
            examples = decodable(examples, left_out, strict)
        if unlabelled is not None:
            more = _unlabelled(unlabelled, model.backbone.reads_images, text, left_out, strict)
            examples = Examples(examples.inputs, examples.labels, more)
        if part := training_part(data):
            say(f"{data}: the images in {part.name}/ are learned, the others left alone")
        say(_summary(model, examples))
        if not (known or learner or model.backbone.reads_images):
            say(HINT)
        stage: Stage[Examples, Examples] = Stage(model.next_stage, examples, {})
        run = f"{store.name}/{stage_title(stage.name).replace(' ', '-')}"
        with bar(store.name) as shown:
            steps = ((store, step) for step in model.fit_stage(stage))
            for _, step in tracked(steps, lambda _: tracker(run, model.settings)):
                shown.follow(step)
            model.save(store)
            shown.say(description="saved")
    score = model.entries[-1].info.get("held-out accuracy")
    outcome = "" if score is None else f"; held-out accuracy of the new classes {100 * score:.0f} %"
    say(f"{store}: {stage_title(stage.name)} learned, {counted(len(model.classes), 'class', 'classes')}{outcome}")
    say_logs(track)
    finish(left_out)


def _learn_names(store: Path, names: Sequence[str], backbone: str | None, others: Sequence[object]) -> None:
    if not names:
        raise SettingError(f"{store}: give a folder or table of examples, or classes by --name")
    if any(other is not None for other in others):
        raise SettingError(
            f"{store}: --name stands in place of examples and of all options but --backbone; learn examples by another command"
        )
    texts = {name: text for name, _, text in (one.partition("=") for one in names)}
    if len(texts) < len(names):
        raise SettingError(f"{store}: --name: a class is named twice; name it once")
    with stoppable("the model is unchanged; the same command starts again"), locked(store):
        model = open_model(store, backbone).learn_names(texts)
        model.save(store)
    new = len(model.entries[-1].info[NEW_CLASSES])
    say(
        f"{store}: {counted(new, 'class', 'classes')} learned by name, {len(model.classes)} in all; names explain "
        f"{100 * model.entries[-1].info['names explain']:.0f} % of how the features of the known classes differ"
    )


@app.command()
def predict(
    store: Folder,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Images or image folders; texts, files of texts (.txt, .jsonl, .csv, .parquet) or - for standard input."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of classes per prediction.")] = 3,
    reject: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="RATE",
            help="Answer 'none known' for inputs outside all known classes, at this false-rejection rate.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    text: TextColumn = "text",
    stages: State = None,
    strict: Strict = False,
    backbone: BackbonePlace = None,
) -> None:
    """Predict the classes of images or texts, with probabilities. Unreadable inputs are skipped and reported."""
    model = open_model(store, backbone, stages=stages)
    queries = image_queries(inputs) if model.backbone.reads_images else text_queries(inputs, text)
    if strict:
        _require_readable(queries)
    left_out: list[str] = []
    summary = _collect_errors(_predictions(model, queries, top, reject), left_out)
    if json_:
        print_json(summary, reject is not None)
    else:
        print_tables(summary)
    if len(left_out) == len(queries):
        raise _none_readable(left_out)
    finish(left_out)


@app.command()
def forget(
    store: Folder,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Class of a classifier to remove.")
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option("--item", metavar="ID", help="Item of a click model to delete; may be repeated.")
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="ID", help="User of a click model to forget for good; may be repeated."),
    ] = None,
    states: Annotated[
        str | None, typer.Option("--states", metavar="URL", help="Click model: URL of its state database.")
    ] = None,
    backbone: BackbonePlace = None,
) -> None:
    """Remove a class of a classifier, or items or users of a click model. Their effect on shared weights remains; earlier stages
    of a classifier stay in the store."""
    given = sum((class_ is not None, bool(item), bool(user)))
    if given > 1:
        raise SettingError(f"{store}: give only one of --class (of a classifier), --item and --user (of a click model)")
    if not given:
        raise SettingError(f"{store}: give --class NAME of a classifier, or --item ID or --user ID of a click model")
    if class_ is not None:
        _forget_class(store, class_, backbone)
    elif user:
        forget_users(store, user, states)
    else:
        forget_items(store, item or [], states)


def _forget_class(store: Path, class_: str, backbone: str | None) -> None:
    with Store(store).held():
        model = open_model(store, backbone).forget(class_)
        model.save(store)
    left = counted(len(model.classes), "class", "classes")
    say(
        f"{store}: '{class_}' removed, {left} left. Its mean and its row of the head are deleted; the effect "
        "of its examples on the adapted weights and on the pooled covariance remains, and so do the earlier stages of this store."
    )


@app.command()
def checkout(
    store: Folder,
    stages: Annotated[int, typer.Option(min=1, metavar="N", help="Number of stages to keep.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the copy.")],
) -> None:
    """Copy an earlier stage of a store into a new one. Item states in service are not copied."""
    Store(store).checkout(stages, out)
    kind = LEARNERS.get(Store(store).manifest().learner)
    states = "" if kind is None or issubclass(kind, ClassLearner) else "; states of items in service are not copied"
    say(f"{out}: the first {stages} of the stages of {store}{states}")


@app.command()
def export(
    store: Folder,
    out: Annotated[Path, typer.Argument(help="Output folder; must be empty or new.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"Format: {', '.join(FORMS)}.")],
    stages: State = None,
    backbone: BackbonePlace = None,
) -> None:
    """Export a classifier for other libraries. They load it without newcomer."""
    if to not in FORMS:
        raise SettingError(f"--to {to}: no such format; {nearest(to, FORMS)}")
    FORMS[to](open_model(store, backbone, stages=stages), out)
    say(f"{out}: {store} for {to}; {out / 'README.md'} says how to load it")


def _predictions(model: ClassLearner, queries: Sequence[Query], top: int, reject: float | None) -> Iterator[Answer]:
    """Each input's prediction, or its error message."""
    answers = model.iter_predictions([one.input for one in queries if not one.problem], top=top, reject=reject)
    for one in queries:
        answer = one.problem or next(answers)
        if isinstance(answer, NewcomerError):
            answer = str(answer)
        yield one.name, answer


def _collect_errors(summary: Iterator[Answer], left_out: list[str]) -> Iterator[Answer]:
    """Pass predictions through, collecting error messages in `left_out`."""
    for name, answer in summary:
        if isinstance(answer, str):
            left_out.append(answer)
        yield name, answer


def _require_readable(queries: Sequence[Query]) -> None:
    """Raises DataError for the first input that cannot be read."""
    for one in queries:
        if one.problem:
            raise DataError(one.problem)
    for problem in decoding_problems([one.input for one in queries if isinstance(one.input, Path)]):
        if problem:
            raise DataError(problem)


def _none_readable(left_out: Sequence[str]) -> DataError:
    """The error if no input is readable; several are listed on stderr."""
    if len(left_out) == 1:
        return DataError(left_out[0])
    name_left_out(left_out)
    return DataError(f"none of the {len(left_out)} inputs can be read")


def _read_examples(data: Path, text: str, label: str, left_out: list[str], strict: bool) -> Examples:
    """Read training examples; on failure list the unreadable inputs on stderr."""
    try:
        return training_examples(data, text, label, None if strict else left_out)
    except DataError:
        name_left_out(left_out)
        raise


def _unlabelled(path: str, images: bool, text: str, left_out: list[str], strict: bool) -> Sequence[Path | str]:
    """The images of a folder, or the texts of a file; those that cannot be read are reported in `left_out`.

    Raises DataError if none can, and if `strict` for the first.
    """
    queries = image_queries([path]) if images else text_queries([path], text)
    if strict:
        _require_readable(queries)
    right = [query.input for query in queries if not query.problem]
    problems = [query.problem for query in queries if query.problem]
    if images:
        damaged = list(decoding_problems([Path(one) for one in right]))
        problems += [problem for problem in damaged if problem]
        right = [one for one, problem in zip(right, damaged, strict=True) if not problem]
    if not right:
        raise _none_readable(problems)
    left_out += problems
    return right


def _of_classes(examples: Examples, patterns: Sequence[str], data: Path) -> Examples:
    """The examples of classes with these names, or that match these patterns.

    Raises DataError for one that none does.
    """
    wanted = set[str]()
    for pattern in patterns:
        found = matching(class_name(pattern), examples.classes)
        if not found:
            raise DataError(f"{data}: no class is or matches --class {pattern}; {nearest(pattern, examples.classes)}")
        wanted |= set(found)
    rows = [row for row, label in enumerate(examples.labels) if label in wanted]
    if not isinstance(examples.inputs, ImageFiles):
        return examples.select(rows)
    return Examples(ImageFiles([examples.inputs.paths[row] for row in rows]), [examples.labels[row] for row in rows])


def decodable(examples: Examples, left_out: list[str], strict: bool) -> Examples:
    """Examples whose images can be decoded completely; errors of the others are added to `left_out`.

    Raises DataError if none is left, and if `strict` for the first damaged one.
    """
    if not isinstance(examples.inputs, ImageFiles):
        return examples
    right = []
    with bar("images", stays=False) as shown:
        for place, problem in enumerate(decoding_problems(examples.inputs.paths)):
            shown.follow(Step("checked", place + 1, len(examples)))
            if problem is None:
                right.append(place)
            elif strict:
                raise DataError(problem)
            else:
                left_out.append(problem)
    if not right:
        raise _none_readable(left_out)
    rest = examples if len(right) == len(examples) else examples.select(right)
    lost = [name for name in examples.classes if name not in rest.classes]
    left_out += [f"class '{name}' has no readable image; it is not learned" for name in lost]
    return rest


def open_model(
    store: Path, backbone: str | None = None, *, stages: int | None = None, **settings: Json
) -> ClassLearner:
    """The classifier in this folder, with changed settings; `backbone`: where its backbone has moved.

    Raises StoreError for a click model's store.
    """
    kind = find_learner(Store(store).manifest().learner)
    if not issubclass(kind, ClassLearner):
        raise StoreError(
            f"{store}: holds a model of '{Store(store).manifest().learner}', a click model; use `newcomer add`, `score`, "
            "`warm` and `forget --item`"
        )
    return kind.load(store, stages=stages, **({} if backbone is None else {"backbone": backbone}), **settings)


def _require_same_learner(store: Path, name: str | None) -> None:
    """Raises SettingError if the model has another learner."""
    if name not in (None, saved := Store(store).manifest().learner):
        raise SettingError(f"{store}: --learner {name}: this model's is '{saved}' and cannot change; leave it out")


def _name_changes(store: Path, saved: Mapping[str, Json], given: dict[str, Json]) -> None:
    """Say which settings of an existing model change."""
    changed = [f"{key} = {now} (was {was})" for key, (was, now) in changes(saved, {**saved, **given}).items()]
    if changed:
        say(f"{store}: settings change from now on: {', '.join(changed)}")


def _new(
    store: Path, backbone: str | None, name: str | None, settings: dict[str, Json], of_backbone: dict[str, Json]
) -> ClassLearner:
    kind = CLASSES.get(name or SDLoRA.name)
    if kind is None or not issubclass(kind, ClassLearner):
        raise SettingError(f"--learner {name}: no such method for classes; {nearest(str(name), CLASSES)}")
    if backbone is None:
        raise SettingError(
            f"{store}: no model here yet; give its backbone with --backbone, e.g. google/vit-base-patch16-224 for images, "
            "sentence-transformers/all-MiniLM-L6-v2 for texts"
        )
    filled = fill(kind, settings, "", provided=["backbone"])
    make: Callable[..., ClassLearner] = kind
    return make(Backbone(**fill(Backbone, {"name": backbone, **of_backbone}, "backbone")), **filled)


def _changes(given: list[str]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Settings of the learner, and of its backbone."""
    pairs: list[tuple[str, Any]] = [parse_change(change) for change in given]
    prefix = "backbone."
    return (
        {key: value for key, value in pairs if not key.startswith(prefix)},
        {key.removeprefix(prefix): value for key, value in pairs if key.startswith(prefix)},
    )


def _summary(model: ClassLearner, examples: Examples) -> str:
    """Summary of the examples before training."""
    named = {name for name, by_name in zip(model.classes, model.memory.named.tolist(), strict=True) if by_name}
    new = [name for name in examples.classes if name not in model.classes or name in named]
    known = [name for name in examples.classes if name not in new]
    summary = counted(len(examples), "example")
    if new:
        summary += f"; new classes: {shorten(', '.join(new), 200)}"
    if known:
        summary += f"; more of known classes: {shorten(', '.join(known), 200)}"
    if not new:
        return summary + ". The class statistics are updated; no weight is trained."
    if len(examples.classes) == 1:
        return (
            summary
            + ". With a single class there is nothing to discriminate: its statistics are stored; no weight is trained."
        )
    return summary
