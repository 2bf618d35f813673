"""`newcomer train`: train a click model on a log."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as RichTable

from newcomer.cli.items import Folder
from newcomer.cli.learner_config import learner_of
from newcomer.cli.program import Track, app, bar, console, say, say_logs, shorten, stoppable
from newcomer.data.inference.column_roles import EXPECTED_VALUES
from newcomer.data.inference.schema import Proposal, columns_of, propose, read_schema
from newcomer.data.io.chunked_log import open_log
from newcomer.data.schema import Schema
from newcomer.errors import DataWarning, SettingError, StoreError
from newcomer.experiments.tracking import find_tracker
from newcomer.experiments.tracking import track as tracked
from newcomer.items.methods.emerg import EmerG
from newcomer.printable import counted
from newcomer.registry import ITEMS
from newcomer.store.folder import Store
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.learner import locked

HINT = (
    "hint: if field interactions do not differ between items, `--learner dropout-net --set adaptation=map --set "
    "generate_init=true --set id_dropout=0.2 --set warmup_events=all` is as accurate and trains faster"
)


Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="Name the item, user, label or time column of a log, such as item=film_nr; may be repeated.",
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
            metavar="NAME", help=f"Method: {', '.join(ITEMS)}; by default from the file's [learner], else emerg."
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
    kind, settings, description = learner_of(schema, learner, set_ or [])
    if schema and column:
        raise SettingError(f"--column says nothing beside --schema {schema}; correct [data.schema] there")
    tracker = find_tracker(track)
    if Store(store).exists():
        raise StoreError(f"{store}: holds a model already; choose another folder, or give new items to `newcomer add`")
    with stoppable("the same command continues where it stopped"), locked(store):
        meaning = read_schema(schema) if schema else _proposed(log, column)
        events = open_log(log, replace(meaning, max_conflict_share=0.0) if strict else meaning)
        warn_without_item_fields(meaning, log)
        say(description)
        if learner is None and kind is EmerG:
            say(HINT)
        model, checkpoint = kind(meaning, **settings), Checkpoint(store / "checkpoint")
        with bar(store.name) as shown:
            steps = ((store, step) for step in model.fit_stage(Stage("old", OldItems(events), {}), checkpoint))
            for _, step in tracked(steps, lambda _: tracker(f"{store.name}/train", {"learner": kind.name, **settings})):
                shown.follow(step)
            model.save(store)
            checkpoint.remove()
            shown.say(description="saved")
    say(f"{store}: {counted(len(model.known), 'item')} learned from {counted(len(events), 'event')}")
    say_logs(track)


def show_proposal(proposal: Proposal) -> None:
    """Print a proposed schema: every column with its role, kind and reason."""
    schema = proposal.schema
    roles = {schema.item: "item id", schema.user: "user id", schema.label: "label", schema.time: "time"}
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
    used = {schema.label, schema.time, *(node.name for node in schema.nodes)}
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


def _proposed(log: str, column: Sequence[str] | None) -> Schema:
    proposal = propose(log, **named_columns(column))
    show_proposal(proposal)
    console.print(
        "This schema is used. `newcomer inspect LOG --write FILE.toml` writes it to be edited.", highlight=False
    )
    return proposal.schema
