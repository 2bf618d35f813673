"""Commands for a click model in service: teach it a log, add items, score requests, warm items up by events."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.table import Table as RichTable

from newcomer.cli.program import app, bar, console, shorten, stoppable
from newcomer.data.infer import Proposal, propose, read_schema
from newcomer.data.pieces import open_log
from newcomer.data.rows import from_lines, read_rows, to_lines, write_rows
from newcomer.data.schema import Schema
from newcomer.errors import SettingError, StoreError, nearest
from newcomer.items.learner import ItemLearner
from newcomer.items.live import LiveItems
from newcomer.recipe import ITEMS, LEARNERS, parse_change
from newcomer.settings import fill
from newcomer.store.folder import Store
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint

Folder = Annotated[Path, typer.Argument(help="The folder of the click model.")]
States = Annotated[
    str | None,
    typer.Option("--states", help="URL of the database of states; by default items.db in the model's folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="The result as one JSON object.")]
TABLES = "CSV, parquet or JSON lines; - for JSON lines on the standard input."


@app.command()
def train(
    store: Folder,
    log: Annotated[str, typer.Argument(help="The click log: a CSV or parquet file, or a pattern.")],
    schema: Annotated[
        Path | None, typer.Option(help="A TOML file with [data.schema]; without it one is proposed.")
    ] = None,
    learner: Annotated[str, typer.Option(help=f"The method: {', '.join(ITEMS.learners)}.")] = "emerg",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting: width=8.")] = None,
) -> None:
    """Teach a new click model the items of a log. New items are added to it later, and warmed up by their events."""
    kind = _kind(learner)
    settings = fill(kind, dict(parse_change(change) for change in set_ or []), "learner", provided=["schema"])
    if Store(store).exists():
        raise StoreError(f"{store}: holds a model already; choose another folder, or give new items to `newcomer add`")
    with stoppable("the same command goes on where it was"), Store(store).held():
        meaning = read_schema(schema) if schema else _proposed(log)
        events = open_log(log, meaning)
        model, checkpoint = kind(meaning, **settings), Checkpoint(store / "checkpoint")
        with bar(store.name) as shown:
            for step in model.study(Stage("old", OldItems(events), {}), checkpoint):
                shown.follow(step)
            model.save(store)
            checkpoint.remove()
            shown.say(description="saved")
    told = f"{store}: {len(model.known)} items learned from {len(events)} events"
    console.print(told, highlight=False, soft_wrap=True)


@app.command()
def add(
    store: Folder,
    items: Annotated[str, typer.Argument(help=f"The items and their features: {TABLES}")],
    states: States = None,
    json_: AsJson = False,
) -> None:
    """Add new items by their features alone; they can be scored at once."""
    with open_live(store, states) as live:
        added = live.add(_table(items), where=items)
    if json_:
        print(json.dumps({"new": list(added.new), "known": list(added.known)}, ensure_ascii=False))
        return
    told = f"{store}: {len(added.new)} items added"
    if added.known:
        told += (
            f"; {len(added.known)} were there already with the same features: {shorten(', '.join(added.known), 200)}"
        )
    console.print(told, highlight=False, soft_wrap=True)


@app.command()
def score(
    store: Folder,
    requests: Annotated[str, typer.Argument(help=f"Requests, one a row: {TABLES}")],
    out: Annotated[
        Path | None,
        typer.Option(help="File for the answers: .csv, .parquet or .jsonl; by default JSON lines, printed."),
    ] = None,
    states: States = None,
) -> None:
    """Click probabilities of requests, one row each, with the model, the item's phase and its number of events."""
    with open_live(store, states) as live:
        answers = live.score(_table(requests), where=requests)
    if out is None:
        for line in to_lines(answers):
            print(line)
        return
    write_rows(answers, out)
    console.print(f"{out}: {len(answers)} answers", highlight=False, soft_wrap=True)


@app.command()
def warm(
    store: Folder,
    events: Annotated[str, typer.Argument(help=f"Events, one a row: {TABLES}")],
    event_id: Annotated[
        str | None, typer.Option(help="Column of the events' ids; by default event_id, else made of the whole event.")
    ] = None,
    states: States = None,
    json_: AsJson = False,
) -> None:
    """Tune the items that these events are about. An event counts once, however often it is given."""
    with stoppable("what was not done yet is done by the same command"), open_live(store, states) as live:
        done = live.warm(_table(events), event_id, where=events)
    if json_:
        print(json.dumps({"new": done.new, "known": done.known, "items": list(done.items)}, ensure_ascii=False))
        return
    told = f"{store}: {done.new} new events of {len(done.items)} items, {done.known} known already"
    console.print(told, highlight=False, soft_wrap=True)


@contextmanager
def open_live(store: Path, states: str | None) -> Iterator[LiveItems]:
    """The click model in this folder, in service for so long.

    Raises StoreError for a store of another family, with the commands that it takes.
    """
    name = Store(store).manifest().learner
    kind = LEARNERS.get(name)
    if kind is None or not issubclass(kind, ItemLearner):
        raise StoreError(
            f"{store}: holds a model of '{name}', a classifier; use `newcomer learn` and `newcomer predict`"
        )
    with closing(LiveItems.open(kind, store, states)) as live:
        yield live


def show_proposal(proposal: Proposal) -> None:
    """A proposed schema as a table: every column, what it is and why."""
    schema = proposal.schema
    roles = {schema.item: "item id", schema.user: "user id", schema.label: "label", schema.time: "time"}
    fields = {field.name: field for field in schema.fields}
    table = RichTable("column", "role", "kind", "why", "for example")
    for column, why in proposal.reasons.items():
        role = fields[column].role if column in fields else roles.get(column, "–")
        kind = fields[column].kind if column in fields else "–"
        table.add_row(column, role, kind, why, shorten(", ".join(proposal.samples.get(column, ())), 40))
    console.print(table)


def _proposed(log: str) -> Schema:
    proposal = propose(log)
    show_proposal(proposal)
    console.print(
        "This schema is used. `newcomer inspect LOG --write FILE.toml` writes it to be edited.", highlight=False
    )
    return proposal.schema


def _kind(name: str) -> type[ItemLearner]:
    kind = ITEMS.learners.get(name)
    if kind is None or not issubclass(kind, ItemLearner):
        raise SettingError(f"--learner {name}: no such method for items; {nearest(name, ITEMS.learners)}")
    return kind


def _table(source: str) -> pl.DataFrame:
    return from_lines(sys.stdin, "standard input") if source == "-" else read_rows(Path(source))
