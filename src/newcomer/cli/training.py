"""`newcomer train`: train a click model on a log."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from newcomer.cli.items import Folder
from newcomer.cli.learner_config import has_setting, learner_of
from newcomer.cli.program import Bar, Track, app, bar, console, say, say_logs, shorten, stoppable
from newcomer.data.click_log import ClickLog
from newcomer.data.inference.column_roles import EXPECTED_VALUES
from newcomer.data.inference.schema import Proposal, columns_of, propose, read_schema
from newcomer.data.io.chunked_log import ChunkedLog, open_log
from newcomer.data.schema import Schema
from newcomer.errors import DataWarning, SettingError, StoreError
from newcomer.experiments.tracking import find_tracker
from newcomer.experiments.tracking import track as tracked
from newcomer.items.learner import ItemLearner
from newcomer.items.learner_selection import (
    FASTER,
    HISTORY,
    PLAIN_ROW,
    RATE,
    REGULARIZATION,
    WITHOUT_CHOICE,
    best_row,
    can_have_histories,
    candidates,
    hold_out,
    hold_out_changes,
)
from newcomer.items.methods.emerg import EmerG
from newcomer.items.training.calibration import MIN_ITEMS, MIN_LABELS
from newcomer.printable import counted
from newcomer.registry import ITEMS
from newcomer.settings import Json
from newcomer.store.folder import Store
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.learner import locked

HINT = "hint: `--learner auto` tries a DeepFM and plain rates beside emerg on held-out items, and trains the best"
AUTO = "auto"
"""Name of no learner: the best on held-out items is trained."""


Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="Name the item, user, label, time or weight column of a log, such as item=film_nr; may be repeated.",
    ),
]


@app.command()
def train(
    store: Folder,
    log: Annotated[
        str, typer.Argument(help="Click log: file (CSV, JSON lines, parquet, Arrow), folder, pattern or URL.")
    ],
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with [data.schema], and optionally [learner] and seed; by default a schema is proposed.",
        ),
    ] = None,
    column: Columns = None,
    learner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Method: {', '.join(ITEMS)}, or auto: the best on held-out items; by default the file's [learner], else emerg.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as width=8; overrides the file."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if rows of an item or user disagree.")] = False,
    track: Track = None,
) -> None:
    """Train a new click model on a log. Add new items later with `newcomer add`, and warm them up with `newcomer warm`."""
    if learner == AUTO and set_:
        raise SettingError(
            f"--set {set_[0]} says nothing beside --learner auto, which tries learners as they are; leave it out"
        )
    kind, settings, description = learner_of(schema, None if learner == AUTO else learner, set_ or [])
    if schema and column:
        raise SettingError(f"--column says nothing beside --schema {schema}; correct [data.schema] there")
    tracker = find_tracker(track)
    if Store(store).exists():
        raise StoreError(f"{store}: holds a model already; choose another folder, or give new items to `newcomer add`")
    with stoppable("the same command continues where it stopped"), locked(store):
        if schema:
            meaning = read_schema(schema)
        else:
            proposal = _proposed(log, column)
            meaning = proposal.schema  # words that cannot be were refused above, before the log is read
            kind, settings, description = learner_of(
                None, None if learner == AUTO else learner, set_ or [], proposal.learner
            )
        events = open_log(log, replace(meaning, max_conflict_share=0.0) if strict else meaning)
        warn_without_item_fields(meaning, log)
        checkpoint = Checkpoint(store / "checkpoint")
        with bar(store.name) as shown:
            if learner == AUTO:
                given = {key: settings[key] for key in REGULARIZATION if key in settings}
                model = _best(meaning, events, log, given, settings["seed"], checkpoint, shown)
            else:
                say(description)
                if learner is None and kind is EmerG:
                    say(HINT)
                model = kind(meaning, **settings)
                if learner is None and kind is EmerG:
                    stated = partial(has_setting, schema, set_ or [])
                    model = _improved(model, settings, stated, events, checkpoint, shown)
            run = {"learner": model.name, **model.settings}
            steps = ((store, step) for step in model.fit_stage(Stage("old", OldItems(events), {}), checkpoint))
            for _, step in tracked(steps, lambda _: tracker(f"{store.name}/train", run)):
                shown.follow(step)
            model.save(store)
            checkpoint.remove()
            shown.say(description="saved")
    say(f"{store}: {counted(len(model.known), 'item')} learned from {counted(len(events), 'event')}")
    for line in held_out_lines(model.info().get("held_out")):
        say(line)
    say_logs(track)


def held_out_lines(found: Mapping[str, Any] | None) -> Iterator[str]:
    """What `ItemLearner.info` says of held-out items, as lines."""
    if found is None:
        yield (
            f"held-out items: none; they need {MIN_ITEMS} items with {MIN_LABELS} clicks and as many other events, and "
            "calibrate = true or passes to choose; `newcomer evaluate` on later events tells how good it is"
        )
        return
    first, last = found["scores"][0], found["scores"][-1]
    yield (
        f"held-out items: {counted(found['items'], 'item')}, which a second model did not learn; AUC {first['auc']:.3f} before "
        f"their first event, {last['auc']:.3f} after {last['events']}, each on all later events; "
        f"log loss {first['logloss']:.3f} and {last['logloss']:.3f}, of the click rate as a constant {first['constant']:.3f}"
    )
    if worse := [str(score["events"]) for score in found["scores"] if score["logloss"] > score["constant"]]:
        yield (
            f"log loss after {', '.join(worse)} events: worse than that of a constant; use the order of these scores, not their "
            "values"
        )
    if len(found["tried"]) > 1:
        tried = ", ".join(f"{count}: {loss:.4f}" for count, loss in found["tried"].items())
        passes = counted(found["pretrain_epochs"], "pass", "passes")
        yield f"pre-training: {passes}; mean log loss of held-out items by passes: {tried}"


def _best(
    schema: Schema,
    events: ClickLog | ChunkedLog,
    where: str,
    regularization: Mapping[str, Json],
    seed: Json,
    checkpoint: Checkpoint,
    shown: Bar,
) -> ItemLearner:
    """The best of some learners on held-out items, with a line for each; the plainest where nothing can be held out."""
    if not isinstance(events, ClickLog):
        raise SettingError(f"--learner auto needs a log in memory, and {where} is read in chunks; name a learner")
    learners = candidates(schema, events, regularization, seed=seed)
    for step in hold_out(learners, "old", events, checkpoint):
        shown.follow(step)
    row = best_row(learners)
    if row is None:
        say(
            f"learner: {WITHOUT_CHOICE}, without a trial: {where} has too few items or events to hold some out, and logistic "
            "regression is not surer than so few tell"
        )
        return learners[WITHOUT_CHOICE]
    _say_tried(learners)
    return learners[row]


def _improved(
    model: ItemLearner,
    settings: Mapping[str, Json],
    stated: Callable[[Iterable[str]], bool],
    events: ClickLog | ChunkedLog,
    checkpoint: Checkpoint,
    shown: Bar,
) -> ItemLearner:
    """EmerG; or with users' histories, and then at twice the learning rate, where held-out items are predicted better so, with a
    line for each. What is `stated` is not changed."""
    if not isinstance(events, ClickLog):
        return model
    rounds: list[Mapping[str, Mapping[str, Json]]] = []
    if not stated(HISTORY) and can_have_histories(events):
        rounds.append({"history": HISTORY})
    if not stated([RATE]):
        rounds.append({"faster": {RATE: FASTER * float(model.settings[RATE])}})
    if not rounds:
        return model
    tried = {PLAIN_ROW: model}
    for step in hold_out_changes(tried, settings, rounds, "old", events, checkpoint):
        shown.follow(step)
    row = best_row(tried)
    if row is None:
        return model
    _say_tried(tried)
    return tried[row]


def _say_tried(learners: Mapping[str, ItemLearner]) -> None:
    """A line for each learner's held-out items, and one for the best."""
    for name, learner in learners.items():
        assert learner.held_out is not None  # as of the best one
        first, last = learner.held_out.scores[0], learner.held_out.scores[-1]
        say(
            f"tried {name}: mean log loss {learner.held_out.loss:.4f} of held-out items; AUC {first.auc:.3f} before their first "
            f"event, {last.auc:.3f} after {last.events}"
        )
    say(f"learner: {best_row(learners)}, which has the least log loss of held-out items")


def show_proposal(proposal: Proposal) -> None:
    """Print a proposed schema: every column with its role, kind and reason."""
    schema = proposal.schema
    roles = {schema.item: "item id", schema.user: "user id", schema.label: "label", schema.time: "time"}
    roles |= {} if schema.weight is None else {schema.weight: "weight"}
    fields = {field.name: field for field in schema.fields}
    table = RichTable("column", "role", "kind", "why", "for example")
    for column, why in proposal.reasons.items():
        role = fields[column].role if column in fields else roles.get(column, "–")
        kind = fields[column].kind if column in fields else "–"
        table.add_row(column, role, kind, why, shorten(", ".join(proposal.samples.get(column, ())), 40))
    console.print(table)


def warn_without_item_fields(schema: Schema, log: str) -> None:
    """DataWarning, with the columns that are not used, if nothing is known of a new item."""
    if schema.of("item"):
        return
    used = {*schema.event_columns, *(node.name for node in schema.nodes)}
    unused = ", ".join(column for column in columns_of(log) if column not in used)
    warnings.warn(
        f"{log}: no field has the role item: every new item gets the same score before its first event; columns of the log that "
        f"are not used: {unused or 'none'}",
        DataWarning,
        stacklevel=2,
    )


def named_columns(given: Sequence[str] | None) -> dict[str, str]:
    """The columns that --column names, by role. Raises SettingError for another role or form, and for a role given twice."""
    found = dict[str, str]()
    for text in given or ():
        role, sign, name = text.partition("=")
        if role not in EXPECTED_VALUES or not sign or not name or role in found:
            raise SettingError(f"--column {text}: give one of {', '.join(EXPECTED_VALUES)} once, such as item=film_nr")
        found[role] = name
    return found


def _proposed(log: str, column: Sequence[str] | None) -> Proposal:
    proposal = propose(log, **named_columns(column))
    show_proposal(proposal)
    console.print(
        "This schema is used. `newcomer inspect LOG --write FILE.toml` writes it to be edited.", highlight=False
    )
    return proposal
