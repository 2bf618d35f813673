"""`newcomer inspect`: show a classifier, a click model, one of its items, or a click log."""

import glob
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from newcomer.cli.item_inspection import show_item, show_items
from newcomer.cli.program import app, console, shorten
from newcomer.cli.training import show_proposal
from newcomer.data.inference.schema import propose, write_schema
from newcomer.data.io.tables import FORMATS
from newcomer.errors import SettingError, StoreError
from newcomer.items.learner import ItemLearner
from newcomer.printable import counted, printable_json
from newcomer.registry import LEARNERS
from newcomer.settings import Json
from newcomer.store.folder import Entry, Manifest, Store


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="Folder of a model, or a click log: CSV or parquet file, or pattern.")],
    item: Annotated[str | None, typer.Option(help="Item of a click model to show.")] = None,
    states: Annotated[str | None, typer.Option("--states", help="Click model: URL of its state database.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write the proposed schema of a log to this TOML file.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model, one of its items, or a click log's schema."""
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


def _show_classes(store: Path, json_: bool) -> None:
    opened = Store(store)
    manifest, entries = opened.manifest(), opened.entries()
    rows = [_stage(store, entry, stage["file"]) for entry, stage in zip(entries, manifest.stages, strict=True)]
    for row in rows:
        _require_shown(store, row["info"])
    last = entries[-1].tensors.get("magnitudes") if entries else None
    magnitudes = last.tolist() if last is not None and last.dim() == 2 else None
    if json_:
        found = {
            "learner": manifest.learner,
            "settings": manifest.settings,
            "depends on": manifest.depends_on,
            "stages": rows,
        }
        print(printable_json(found | ({"magnitudes": magnitudes} if magnitudes else {}), indent=1))
        return
    _show_manifest(store, manifest)
    known = _show_stages(rows)
    if known:
        console.print(f"{counted(len(known), 'class', 'classes')}: {shorten(', '.join(known), 300)}", highlight=False)
    if magnitudes:
        shown = "; ".join(" ".join(f"{value:.3g}" for value in row[:8]) for row in magnitudes)
        console.print(f"magnitudes by direction: {shorten(shown, 300)}", highlight=False)


def _require_shown(store: Path, info: dict[str, Json]) -> None:
    """Raises StoreError if the metadata of a stage is not of newcomer's form."""
    classes, score = info.get("classes", []), info.get("held-out accuracy", 0.0)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise StoreError(f"{store}: the classes of a stage are no list of names; restore the folder from a copy")
    if not isinstance(score, (int, float)):
        raise StoreError(f"{store}: the accuracy of a stage is no number; restore the folder from a copy")


def _show_manifest(store: Path, manifest: Manifest) -> None:
    console.print(f"{store}: {manifest.learner}, format {manifest.format}", highlight=False)
    for title, part in (("settings", manifest.settings), ("depends on", manifest.depends_on)):
        console.print(
            f"{title}: " + ", ".join(f"{key} = {shorten(value)}" for key, value in part.items()), highlight=False
        )


def _stage(store: Path, entry: Entry, file: str) -> dict[str, Any]:
    return {
        "stage": entry.name,
        "parameters": sum(tensor.numel() for tensor in entry.tensors.values()),
        "bytes": (store / file).stat().st_size,
        "info": {key: value for key, value in entry.info.items() if key != "settings"},
    }


def _show_stages(rows: list[dict[str, Json]]) -> list[str]:
    """Print the stages; return the classes known after the last."""
    table = RichTable("stage", "new classes", "parameters", "bytes", "held-out accuracy", "other metadata")
    known: list[str] = []
    for row in rows:
        info = dict(row["info"])
        classes = info.pop("classes", known)
        new = ", ".join(name for name in classes if name not in known) or "–"
        score, known = info.pop("held-out accuracy", None), classes
        other = ", ".join(
            f"{key} {f'{value:.3g}' if isinstance(value, float) else shorten(value, 30)}" for key, value in info.items()
        )
        accuracy = "–" if score is None else f"{score:.2f}"
        table.add_row(row["stage"], shorten(new), f"{row['parameters']:,}", f"{row['bytes']:,}", accuracy, other)
    console.print(table)
    return known
