"""`newcomer inspect`: show a classifier, a click model, one of its items, or a click log."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from newcomer.cli.class_inspection import show_classes
from newcomer.cli.item_inspection import show_item, show_items
from newcomer.cli.program import app, console
from newcomer.cli.training import Columns, named_columns, show_proposal, warn_without_item_fields
from newcomer.data.inference.schema import propose, write_schema
from newcomer.data.io.formats import find_format
from newcomer.data.io.log_files import holds_tables
from newcomer.data.io.remote import remote_url
from newcomer.errors import SettingError
from newcomer.items.learner import ItemLearner
from newcomer.printable import printable_json
from newcomer.registry import LEARNERS
from newcomer.store.folder import Store


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="Folder of a model, or a click log: file, folder, pattern or URL.")],
    item: Annotated[str | None, typer.Option(metavar="ID", help="Item of a click model to show.")] = None,
    states: Annotated[
        str | None, typer.Option("--states", metavar="URL", help="Click model: URL of its state database.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the proposed schema of a log to this TOML file.")
    ] = None,
    column: Columns = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model, one of its items, or a click log's schema."""
    if _is_log(path):
        _only(path, "a log", item=item, states=states)
        return _show_log(path, write, named_columns(column), json_)
    store = Path(path)
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is not None and issubclass(kind, ItemLearner):
        _only(path, "a click model", write=write, column=column or None)
        return show_items(store, states, json_) if item is None else show_item(store, item, states, json_)
    _only(path, "a classifier", write=write, column=column or None, item=item, states=states)
    return show_classes(store, json_)


def _is_log(path: str) -> bool:
    file = Path(path)
    if file.is_dir():
        return not Store(file).exists() and holds_tables(file)
    named = remote_url(path) or find_format(path) or glob.has_magic(path)
    return file.is_file() or bool(named)


def _only(path: str, what: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise SettingError(f"--{name} says nothing of {path}, which is {what}; leave it out")


def _show_log(path: str, write: Path | None, columns: Mapping[str, str], json_: bool) -> None:
    proposal = propose(path, **columns)
    warn_without_item_fields(proposal.schema, path)
    if write:
        write_schema(proposal, write)
    if json_:
        found: dict[str, Any] = {
            "schema": proposal.schema.to_json(),
            "reasons": dict(proposal.reasons),
            "rows": proposal.rows,
            "stream": dict(proposal.stream),
            "learned": proposal.training_share,
        }
        print(printable_json(found, indent=1))
        return
    show_proposal(proposal)
    rows = "" if proposal.rows is None else f"{proposal.rows:,} events. "
    if proposal.training_share is not None:
        rows += f"Items of more than {proposal.stream['min_old_events']} events have {proposal.training_share:.0%} of them. "
    then = (
        f"{write}: written; correct it there and give it to `newcomer train --schema`"
        if write
        else "--write FILE.toml keeps it"
    )
    console.print(rows + then, highlight=False, soft_wrap=True)
