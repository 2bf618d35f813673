"""Commands for a click model in service: teach it a log, add items, score requests, warm items up by events."""

import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from rich.table import Table as RichTable

from newcomer.cli.learner_given import learner_of
from newcomer.cli.program import app, bar, console, finish, say, shorten, stoppable
from newcomer.cli.tables import arriving, given
from newcomer.data.inference.schema import Proposal, propose, read_schema
from newcomer.data.io.chunked_log import open_log
from newcomer.data.io.row_files import require_rows_file, to_lines, write_rows
from newcomer.data.schema import Schema
from newcomer.errors import DataError, SettingError, StoreError
from newcomer.experiments.recipe import ITEMS, LEARNERS
from newcomer.items.encoding.unseen_values import Unseen
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.results import OnError
from newcomer.items.serving.scoring import with_errors
from newcomer.items.serving.service import ANSWER, Healed, LiveItems, Warmed
from newcomer.printable import printable_json
from newcomer.settings import Json
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
Strict = Annotated[
    bool, typer.Option("--strict", help="The first row that cannot be done is an error, and nothing is done.")
]
TABLES = "CSV, parquet or JSON lines; - for JSON lines on the standard input."


@app.command()
def train(
    store: Folder,
    log: Annotated[str, typer.Argument(help="The click log: a CSV or parquet file, or a pattern.")],
    schema: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with [data.schema], and [learner] and seed if it has them; without it a schema is proposed."
        ),
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(
            help=f"The method: {', '.join(ITEMS.learners)}; by default that of the file's [learner], else emerg."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: width=8. It counts before those of the file.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Rows of an item or user that disagree are an error.")
    ] = False,
) -> None:
    """Teach a new click model the items of a log. New items are added to it later, and warmed up by their events."""
    kind, settings, said = learner_of(schema, learner, set_ or [])
    if Store(store).exists():
        raise StoreError(f"{store}: holds a model already; choose another folder, or give new items to `newcomer add`")
    with stoppable("the same command goes on where it was"), Store(store).held():
        meaning = read_schema(schema) if schema else _proposed(log)
        events = open_log(log, replace(meaning, disagreeing=0.0) if strict else meaning)
        say(said)
        model, checkpoint = kind(meaning, **settings), Checkpoint(store / "checkpoint")
        with bar(store.name) as shown:
            for step in model.study(Stage("old", OldItems(events), {}), checkpoint):
                shown.follow(step)
            model.save(store)
            checkpoint.remove()
            shown.say(description="saved")
    say(f"{store}: {len(model.known)} items learned from {len(events)} events")


@app.command()
def add(
    store: Folder,
    items: Annotated[str, typer.Argument(help=f"The items and their features: {TABLES}")],
    states: States = None,
    strict: Strict = False,
    json_: AsJson = False,
) -> None:
    """Add new items by their features alone; they can be scored at once."""
    table = given(items, strict)
    with open_live(store, states) as live, table.explaining():
        added = live.add(table.frame, where=table.where, on_error=_on_error(strict))
    left_out = table.without_echo(added.left_out)
    _require_some([*added.new, *added.known], left_out)
    if json_:
        told = {"new": list(added.new), "known": list(added.known)}
        _print(told | {"left_out": left_out, "unseen": added.unseen.to_json()})
    else:
        text = f"{store}: {len(added.new)} items added"
        if added.known:
            text += f"; {len(added.known)} were there already with the same features: {shorten(', '.join(added.known), 200)}"
        say(text + _never_seen(added.unseen))
    finish(left_out)


@app.command()
def score(
    store: Folder,
    requests: Annotated[str, typer.Argument(help=f"Requests, one a row: {TABLES}")],
    out: Annotated[
        Path | None,
        typer.Option(help="File for the answers: .csv, .parquet or .jsonl; by default JSON lines, printed."),
    ] = None,
    states: States = None,
    strict: Strict = False,
) -> None:
    """Click probabilities of requests, one row each, with the model, the item's phase and its number of events, and how many of the
    request's values the model has never seen."""
    require_rows_file(out, requests)
    answered, left_out = list[pl.DataFrame](), list[str]()
    with open_live(store, states) as live:
        for answers in _answers(live, requests, strict):
            left_out += answers["error"].drop_nulls().to_list()
            answered.append(answers if strict or out else answers.select("score"))
            _print_answers(answers, out is None and not strict)
    every = pl.concat(answered) if answered else pl.DataFrame(schema=ANSWER)
    _require_some(every["score"].drop_nulls(), left_out)
    _print_answers(every, out is None and strict)
    if out is not None:
        write_rows(every, out)
        unseen = int(every["unseen"].sum())
        told = f"; {unseen:,} values of requests were never seen before" if unseen else ""
        say(f"{out}: {len(every)} answers{told}")
    finish(left_out)


@app.command()
def warm(
    store: Folder,
    events: Annotated[str | None, typer.Argument(help=f"Events, one a row: {TABLES}")] = None,
    event_id: Annotated[
        str | None, typer.Option(help="Column of the events' ids; by default event_id, else made of the whole event.")
    ] = None,
    heal: Annotated[
        bool,
        typer.Option("--heal", help="First make items anew whose state is no number, or was made of numbers far out."),
    ] = False,
    states: States = None,
    strict: Strict = False,
    json_: AsJson = False,
) -> None:
    """Tune the items that these events are about. An event counts once, however often it is given."""
    if events is None and not heal:
        raise SettingError("warm: no events; give a table of them, or --heal to make anew what is no number")
    table = None if events is None else given(events, strict)
    with stoppable("what was not done yet is done by the same command"), open_live(store, states) as live:
        healed = live.heal() if heal else Healed([])
        done = Warmed(0, 0, [])
        if table is not None:
            with table.explaining():
                done = live.warm(table.frame, event_id, where=table.where, on_error=_on_error(strict))
    lines = table.without_echo(done.left_out) if table is not None else []
    left_out = [*healed.left_out, *lines]
    if not healed.items:
        _require_some([None] * (done.new + done.known + done.conflicting), lines)
    if json_:
        told = {"new": done.new, "known": done.known, "items": list(done.items), "conflicting": done.conflicting}
        told |= {"left_out": left_out, "unseen": done.unseen.to_json()}
        _print(told | ({"healed": list(healed.items)} if heal else {}))
    else:
        for line in _warmed(store, done if table is not None else None, healed if heal else None):
            say(line)
    finish(left_out)


def forget_items(store: Path, items: Sequence[str], states: str | None) -> None:
    """Delete all that the database holds of these items."""
    with open_live(store, states) as live:
        gone = live.forget(items)
    say(
        f"{store}: {shorten(', '.join(gone), 200)}: state and events are deleted, and do not come back. What was learned from "
        "them remains in the shared weights; of an item that the model was taught with, so does what the store keeps of that."
    )


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


def _answers(live: LiveItems, source: str, strict: bool) -> Iterator[pl.DataFrame]:
    """Answers as they come; a line that is no object has one that says so."""
    for number, part in enumerate(arriving(source, strict)):
        begin = 0
        if part.broken and not len(part.frame):
            yield with_errors(pl.DataFrame(schema=ANSWER), np.arange(0), len(part.broken), part.broken, live.model)
        try:
            with part.explaining():
                for answers in live.answers(part.frame, part.where, _on_error(strict)):
                    broken = {n - begin: line for n, line in part.broken.items() if 0 <= n - begin < len(answers)}
                    begin += len(answers)
                    rows = np.setdiff1d(np.arange(len(answers)), list(broken))
                    yield with_errors(answers[rows], rows, len(answers), broken, live.model) if broken else answers
        except DataError as error:
            if strict or not number:
                raise
            lines = dict.fromkeys(range(len(part.frame) - begin), str(error))
            yield with_errors(pl.DataFrame(schema=ANSWER), np.arange(0), len(lines), lines, live.model)


def _print_answers(answers: pl.DataFrame, wanted: bool) -> None:
    for line in to_lines(answers) if wanted else ():
        print(line)
    sys.stdout.flush()


def _warmed(store: Path, done: Warmed | None, healed: Healed | None) -> Iterator[str]:
    """What to say of it."""
    if healed is not None:
        yield f"{store}: {len(healed.items)} items made anew" + (
            f": {shorten(', '.join(healed.items), 200)}" if healed.items else ""
        )
    if done is not None:
        text = f"{store}: {done.new} new events of {len(done.items)} items, {done.known} known already"
        if done.conflicting:
            text += f", {done.conflicting} that had counted with another label and did not count again"
        yield text + _never_seen(done.unseen)


def _never_seen(unseen: Unseen) -> str:
    return f"; never seen before: {unseen}" if str(unseen) else ""


def _on_error(strict: bool) -> OnError:
    return "raise" if strict else "report"


def _require_some(done: Sized, left_out: Sequence[str]) -> None:
    """Raises DataError where all was left out: then nothing was done."""
    if left_out and not len(done):
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise DataError(left_out[0] + more)


def _print(content: Mapping[str, Json]) -> None:
    print(printable_json(dict(content), allow_nan=False))
