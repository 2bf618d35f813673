"""`newcomer inspect`: show a classifier, a click model, one of its items, or a click log."""

import glob
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from newcomer.cli.aligned import print_table
from newcomer.cli.class_data_inspection import is_image_folder, is_text_table, show_class_data
from newcomer.cli.class_inspection import show_classes
from newcomer.cli.item_inspection import show_item, show_items
from newcomer.cli.program import app, console, say, stoppable, with_progress
from newcomer.cli.training import Columns, named_columns, show_proposal, warn_without_item_fields
from newcomer.data.inference.schema import propose, read_schema, write_schema
from newcomer.data.io.formats import find_format
from newcomer.data.io.log_files import holds_tables
from newcomer.data.io.log_reader import read_log
from newcomer.data.io.remote import remote_url
from newcomer.errors import SettingError
from newcomer.items.analysis.graph_ceiling import PAYS, graph_ceiling
from newcomer.items.learner import ItemLearner
from newcomer.printable import counted, printable_json
from newcomer.registry import LEARNERS
from newcomer.store.folder import Store


@app.command()
def inspect(
    path: Annotated[
        str,
        typer.Argument(
            help="Folder of a model; or a click log (file, folder, pattern or URL), a folder of class folders, a table of texts."
        ),
    ],
    item: Annotated[str | None, typer.Option(metavar="ID", help="Item of a click model to show.")] = None,
    states: Annotated[
        str | None, typer.Option("--states", metavar="URL", help="Click model: URL of its state database.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the proposed recipe, with the schema of a log, to this TOML file."),
    ] = None,
    column: Columns = None,
    graphs: Annotated[
        bool,
        typer.Option("--graphs", help="Log: train a model on it, and say how much item graphs can gain there at most."),
    ] = False,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --graphs: TOML file with [data.schema]; by default one is proposed."),
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Table of texts: column with the texts, 'text' by default.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Table of texts: column with the labels, 'label' by default.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model, one of its items, or what a click log, pictures or texts would be learned as."""
    if write is not None and write.is_file():
        raise SettingError(f"--write {write}: is there already, perhaps edited; name another file, or delete this one")
    of_a_log = {"column": column or None, "graphs": graphs or None, "schema": schema}
    if is_text_table(path, text, label):
        _only(path, "a table of texts", item=item, states=states, **of_a_log)
        return show_class_data(path, write, text, label, images=False, json_=json_)
    if not Store(Path(path)).exists() and not _is_log(path) and is_image_folder(path):
        _only(path, "a folder of pictures", item=item, states=states, **of_a_log)
        return show_class_data(path, write, None, None, images=True, json_=json_)
    if _is_log(path):
        _only(path, "a log", item=item, states=states)
        if graphs:
            return _show_graph_ceiling(path, schema, write, named_columns(column), json_)
        if schema:
            raise SettingError(f"--schema {schema} is for --graphs; without it a schema is proposed")
        return _show_log(path, write, named_columns(column), json_)
    store, of_a_log = Path(path), of_a_log | {"write": write}
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is not None and issubclass(kind, ItemLearner):
        _only(path, "a click model", **of_a_log)
        return show_items(store, states, json_) if item is None else show_item(store, item, states, json_)
    _only(path, "a classifier", **of_a_log, item=item, states=states)
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
            "learner": dict(proposal.learner),
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


def _show_graph_ceiling(
    path: str, schema: Path | None, write: Path | None, columns: Mapping[str, str], json_: bool
) -> None:
    """What graphs of its own for each item add at most."""
    if write or (schema and columns):
        raise SettingError("--graphs takes --schema or --column, not both, and no --write")
    log = read_log(path, read_schema(schema) if schema else propose(path, **columns).schema)
    with stoppable("nothing is kept"):
        found = with_progress(Path(path).name, graph_ceiling(log))
    if json_:
        print(printable_json(asdict(found) | {"gain": found.gain, "can_pay": found.can_pay}, indent=1))
        return
    say(f"{path}: {counted(found.held_out, 'held-out event')} of {counted(found.items, 'item')} with many events")
    rows = [
        ("one weight for all items", f"{found.shared:.4f}"),
        ("a weight of its own for each item", f"{found.own:.4f}"),
        ("gain", f"{found.gain:+.4f} ({found.low:+.4f} to {found.high:+.4f})"),
    ]
    print_table(("each pair of fields has", "AUC"), rows)
    say(
        "Field interactions differ between items here: item graphs can pay (emerg)."
        if found.can_pay
        else f"The most that item graphs could gain here is below {PAYS} or chance: choose a model without them (--learner)."
    )
