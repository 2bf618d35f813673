"""`newcomer inspect` for classifiers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from newcomer.classes.class_history import NEW_CLASSES, class_history
from newcomer.cli.aligned import print_pairs, print_table, settings_line
from newcomer.cli.program import say, shorten
from newcomer.errors import StoreError
from newcomer.printable import counted, printable_json, stage_title
from newcomer.settings import Json
from newcomer.store.entry import Entry
from newcomer.store.folder import Manifest, Store

HIDDEN = ("settings", NEW_CLASSES)
"""Metadata of a stage that is not shown: settings are shown once, and the classes are all that are known."""
SHOWN = ("classes", "held-out accuracy", "examples", "cost", "what", "class")
"""Metadata of a stage that has a column, a line or the stage's name of its own."""


def show_classes(store: Path, json_: bool) -> None:
    """Show a classifier: its settings, its stages with their classes and sizes, and what a prediction costs."""
    opened = Store(store)
    manifest, entries = opened.manifest(), opened.entries()
    for entry in entries:
        _require_shown(store, entry.info)
    history = zip(entries, manifest.stages, class_history(entries), strict=True)
    stages = [_stage(store, entry, stage, classes) for entry, stage, classes in history]
    last = (entries[-1].state or {}).get("magnitudes") if entries else None
    magnitudes = last.tolist() if last is not None and last.dim() == 2 else None
    if json_:
        found = {
            "learner": manifest.learner,
            "settings": manifest.settings,
            "depends on": manifest.depends_on,
            "stages": stages,
        }
        print(printable_json(found | ({"magnitudes": magnitudes} if magnitudes else {}), indent=1))
        return
    say(f"{store}: {manifest.learner}, format {manifest.format}")
    print_pairs(_summary(manifest, stages, magnitudes))
    _print_stages(stages)


def _require_shown(store: Path, info: Mapping[str, Json]) -> None:
    """Raises StoreError if the metadata of a stage is not of newcomer's form."""
    classes, score = info.get(NEW_CLASSES, [info.get("class")]), info.get("held-out accuracy", 0.0)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or "what" not in info:
        raise StoreError(f"{store}: the classes of a stage are no list of names; restore the folder from a copy")
    if not isinstance(score, (int, float)):
        raise StoreError(f"{store}: the accuracy of a stage is no number; restore the folder from a copy")
    cost = info.get("cost", {})
    if not isinstance(cost, dict) or not all(isinstance(value, (int, float)) for value in cost.values()):
        raise StoreError(f"{store}: the cost of a stage is no table of numbers; restore the folder from a copy")


def _stage(store: Path, entry: Entry, stage: Mapping[str, Json], classes: list[str]) -> dict[str, Any]:
    state = stage["state"]["bytes"] if stage.get("state") else 0
    tensors = [*entry.tensors.values(), *(entry.state or {}).values()]
    return {
        "stage": stage_title(entry.name),
        "parameters": sum(tensor.numel() for tensor in tensors),
        "bytes": (store / stage["file"]).stat().st_size + state,
        "info": {"classes": classes} | {key: value for key, value in entry.info.items() if key not in HIDDEN},
    }


def _summary(manifest: Manifest, stages: list[dict[str, Any]], magnitudes: list[list[float]] | None) -> dict[str, str]:
    classes = stages[-1]["info"].get("classes", []) if stages else []
    cost: Mapping[str, Json] = next((s["info"]["cost"] for s in reversed(stages) if "cost" in s["info"]), {})
    summary = {
        name: str(what.get("name", shorten(what))) if isinstance(what, Mapping) else shorten(what)
        for name, what in manifest.depends_on.items()
    }
    summary["settings"] = settings_line(manifest.settings)
    summary["classes"] = f"{len(classes)}: {shorten(', '.join(classes), 300)}"
    if magnitudes:
        shown = "; ".join(" ".join(f"{value:.3g}" for value in row[:8]) for row in magnitudes)
        summary["magnitudes"] = f"{shorten(shown, 300)} (one per direction)"
    if {"passes", "gflops", "stored"} <= cost.keys():
        passes = counted(cost["passes"], "pass", "passes")
        summary["prediction"] = f"{passes} of the backbone, {cost['gflops']:.3g} GFLOP an input"
        summary["stored"] = f"{cost['stored']:,} numbers besides the backbone"
    summary["size on disk"] = decimal(sum(stage["bytes"] for stage in stages))
    return summary


def _print_stages(stages: list[dict[str, Any]]) -> None:
    rows, known = [], list[str]()
    for stage in stages:
        info = stage["info"]
        classes, score = info.get("classes", known), info.get("held-out accuracy")
        new = ", ".join(name for name in classes if name not in known)
        rows.append(
            (
                stage["stage"],
                shorten(new) or None,
                info.get("examples"),
                info.get("cost", {}).get("parameters"),
                decimal(stage["bytes"]),
                None if score is None else f"{100 * score:.0f} %",
                "; ".join(filter(None, (_detail(key, value) for key, value in info.items() if key not in SHOWN))),
            )
        )
        known = classes
    head = ("stage", "new classes", "examples", "trained", "size", "held-out accuracy", "details")
    print_table(head, rows)


def _detail(key: str, value: Json) -> str:
    """A fact about a stage in words; empty if it is the usual one."""
    match key, value:
        case "adapted", bool():
            return "backbone adapted" if value else "backbone not adapted"
        case "distilled", bool():
            return "direction distilled" if value else ""
        case "drift explained", float():
            return f"drift map explains {100 * value:.0f} %" if value > 0 else "drift not mapped"
        case "names explain", float():
            return f"names explain {100 * value:.0f} % of the known classes' features"
        case "residual", float():
            return f"residual {value:.2f}"
        case _, float():
            return f"{key} {value:.3g}"
    return f"{key} {shorten(value, 30)}"
