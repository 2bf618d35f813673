"""The command that shows what is there: a classifier, a click model, one of its items, or a click log."""

import glob
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from newcomer.cli.items import show_proposal
from newcomer.cli.items_shown import show_item, show_items
from newcomer.cli.program import app, console, shorten
from newcomer.data.inference.schema import propose, write_schema
from newcomer.data.io.tables import FORMATS
from newcomer.errors import SettingError, StoreError
from newcomer.experiments.recipe import LEARNERS
from newcomer.items.learner import ItemLearner
from newcomer.printable import printable_json
from newcomer.settings import Json
from newcomer.store.folder import Entry, Manifest, Store


@app.command()
def inspect(
    path: Annotated[
        str, typer.Argument(help="The folder of a model; or a click log: a CSV or parquet file, or a pattern.")
    ],
    item: Annotated[str | None, typer.Option(help="Of a click model: the item to show.")] = None,
    states: Annotated[
        str | None, typer.Option("--states", help="Of a click model: URL of its database of states.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Of a log: TOML file for the proposed schema, to be edited.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """What a model is and what it has learned, or what the columns of a click log seem to mean."""
    if _is_log(path):
        _only(path, "a log", item=item, states=states)
        return _show_log(path, write, json_)
    store = Path(path)
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is not None and issubclass(kind, ItemLearner):
        _only(path, "a click model", write=write)
        return show_items(store, states, json_) if item is None else show_item(store, item, states, json_)
    _only(path, "a classifier", write=write, item=item, states=states)
    return _show_classes(store, json_)


def _is_log(path: str) -> bool:
    file = Path(path)
    return not file.is_dir() and (file.is_file() or file.suffix.lower() in FORMATS or glob.has_magic(path))


def _only(path: str, what: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise SettingError(f"--{name} says nothing of {path}, which is {what}; leave it out")


def _show_log(path: str, write: Path | None, json_: bool) -> None:
    proposal = propose(path)
    if write:
        write_schema(proposal, write)
    if json_:
        found: dict[str, Any] = {
            "schema": proposal.schema.to_json(),
            "reasons": dict(proposal.reasons),
            "rows": proposal.rows,
            "stream": dict(proposal.stream),
            "learned": proposal.learned,
        }
        print(printable_json(found, indent=1))
        return
    show_proposal(proposal)
    rows = "" if proposal.rows is None else f"{proposal.rows:,} events. "
    if proposal.learned is not None:
        rows += f"Items of more than {proposal.stream['old_above']} events have {proposal.learned:.0%} of them. "
    then = (
        f"{write}: written; correct it there and give it to `newcomer train --schema`"
        if write
        else "--write FILE.toml keeps it"
    )
    console.print(rows + then, highlight=False, soft_wrap=True)


def _show_classes(store: Path, json_: bool) -> None:
    opened = Store(store)
    manifest, entries = opened.manifest(), opened.entries()
    rows = [_stage(store, entry, stage["file"]) for entry, stage in zip(entries, manifest.stages, strict=True)]
    for row in rows:
        _require_shown(store, row["facts"])
    last = entries[-1].tensors.get("magnitudes") if entries else None
    magnitudes = last.tolist() if last is not None and last.dim() == 2 else None
    if json_:
        found = {
            "learner": manifest.learner,
            "settings": manifest.settings,
            "stands on": manifest.stands_on,
            "stages": rows,
        }
        print(printable_json(found | ({"magnitudes": magnitudes} if magnitudes else {}), indent=1))
        return
    _show_manifest(store, manifest)
    known = _show_stages(rows)
    if known:
        console.print(f"{len(known)} classes: {shorten(', '.join(known), 300)}", highlight=False)
    if magnitudes:
        shown = "; ".join(" ".join(f"{value:.3g}" for value in row[:8]) for row in magnitudes)
        console.print(f"magnitudes, a direction each: {shorten(shown, 300)}", highlight=False)


def _require_shown(store: Path, facts: dict[str, Json]) -> None:
    """Raises StoreError for facts of another maker that no table can show."""
    classes, score = facts.get("classes", []), facts.get("held-out accuracy", 0.0)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise StoreError(f"{store}: the classes of a stage are no list of names; restore the folder from a copy")
    if not isinstance(score, (int, float)):
        raise StoreError(f"{store}: the accuracy of a stage is no number; restore the folder from a copy")


def _show_manifest(store: Path, manifest: Manifest) -> None:
    console.print(f"{store}: {manifest.learner}, format {manifest.format}", highlight=False)
    for title, part in (("settings", manifest.settings), ("stands on", manifest.stands_on)):
        console.print(
            f"{title}: " + ", ".join(f"{key} = {shorten(value)}" for key, value in part.items()), highlight=False
        )


def _stage(store: Path, entry: Entry, file: str) -> dict[str, Any]:
    return {
        "stage": entry.name,
        "numbers": sum(tensor.numel() for tensor in entry.tensors.values()),
        "bytes": (store / file).stat().st_size,
        "facts": {key: value for key, value in entry.facts.items() if key != "settings"},
    }


def _show_stages(rows: list[dict[str, Json]]) -> list[str]:
    """Print the stages; the classes that are known at the end are returned."""
    table = RichTable("stage", "learned", "numbers", "bytes", "held-out accuracy", "other facts")
    known: list[str] = []
    for row in rows:
        facts = dict(row["facts"])
        classes = facts.pop("classes", known)
        new = ", ".join(name for name in classes if name not in known) or "–"
        score, known = facts.pop("held-out accuracy", None), classes
        other = ", ".join(
            f"{key} {f'{value:.3g}' if isinstance(value, float) else shorten(value, 30)}"
            for key, value in facts.items()
        )
        told = "–" if score is None else f"{score:.2f}"
        table.add_row(row["stage"], shorten(new), f"{row['numbers']:,}", f"{row['bytes']:,}", told, other)
    console.print(table)
    return known
