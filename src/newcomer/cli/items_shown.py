"""How a click model and one of its items are shown."""

from contextlib import AbstractContextManager
from pathlib import Path

from rich.table import Table as RichTable

from newcomer.cli.items import open_live
from newcomer.cli.program import console, shorten
from newcomer.data.vocabulary import Vocabulary
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import LiveItems
from newcomer.printable import printable_json
from newcomer.settings import Json
from newcomer.store.folder import Store

EDGES = 10
"""Pairs of fields of an item's graph that are shown, the heaviest first."""


def show_items(store: Path, states: str | None, json_: bool) -> None:
    """What a click model has learned, and how far its items are."""
    with _looking(store, states) as live:
        phases, fields, size = _phases(live), _fields(live), _numbers(live)
    manifest = Store(store).manifest()
    if json_:
        found = {
            "learner": manifest.learner,
            "settings": manifest.settings,
            "model": live.model,
            "items": sum(phase["items"] for phase in phases.values()),
            "events": sum(phase["events"] for phase in phases.values()),
            "phases": phases,
            "fields": fields,
            "numbers per item": size,
        }
        print(printable_json(found, indent=1))
        return
    console.print(f"{store}: {manifest.learner}, format {manifest.format}, model {live.model}", highlight=False)
    settings = ", ".join(f"{key} = {shorten(value)}" for key, value in manifest.settings.items())
    console.print(f"settings: {settings}", highlight=False)
    _print("phase", [(name, phase["items"], phase["events"]) for name, phase in phases.items()], "items", "events")
    _print("field", [(f["name"], f["role"], f["kind"], f["values"]) for f in fields], "role", "kind", "known values")
    console.print(f"numbers per item: {size}", highlight=False)


def show_item(store: Path, item: str, states: str | None, json_: bool) -> None:
    """One item: how far it is, and which pairs of fields weigh most in its graph, where it has one."""
    with _looking(store, states) as live:
        row, state = live.look_up(item)
    edges = _edges(live.learner.graphs(state)[0].tolist(), live) if isinstance(live.learner, EmerG) else []
    facts = {"model": live.model, "phase": row.phase, "events": row.events, "version": row.version}
    facts |= {"updated_at": row.updated_at, "numbers": {key: list(value.shape[1:]) for key, value in state.items()}}
    if json_:
        graph = {"edges": [{"fields": [one, other], "weight": weight} for one, other, weight in edges]} if edges else {}
        print(printable_json({"item": item} | facts | graph, indent=1))
        return
    console.print(f"{store}: item '{item}'", highlight=False)
    for key, value in facts.items():
        console.print(f"{key}: {value}", highlight=False)
    if edges:
        _print(
            "its graph's heaviest edges",
            [(f"{one} × {other}", f"{weight:.3f}") for one, other, weight in edges],
            "weight",
        )


def _looking(store: Path, states: str | None) -> AbstractContextManager[LiveItems]:
    """In service, without leaving a database where there was none."""
    return open_live(store, states or (None if (store / "items.db").exists() else "sqlite://"))


def _phases(live: LiveItems) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for head in live.heads().values():
        phase = found.setdefault(head.phase, {"items": 0, "events": 0})
        phase["items"] += 1
        phase["events"] += head.events
    return dict(sorted(found.items()))


def _fields(live: LiveItems) -> list[dict[str, Json]]:
    """Every field with how many values of it the model knows; None for the item's id, and for numbers."""
    encoder = live.learner.encoder
    found = []
    for node in live.learner.nodes:
        coding = encoder.codings.get(node.name)
        values = len(coding.names) if isinstance(coding, Vocabulary) else None
        found.append({"name": node.name, "role": node.role, "kind": node.kind, "values": values})
    return found


def _numbers(live: LiveItems) -> int:
    return sum(value[0].numel() for value in live.learner.state.values())


def _edges(graph: list[list[float]], live: LiveItems) -> list[tuple[str, str, float]]:
    names = [node.name for node in live.learner.nodes]
    edges = [(names[i], names[j], round(graph[i][j], 4)) for j in range(len(names)) for i in range(j)]
    return sorted(edges, key=lambda edge: -edge[2])[:EDGES]


def _print(head: str, rows: list[tuple[object, ...]], *others: str) -> None:
    table = RichTable(head, *others)
    for row in rows:
        table.add_row(*("–" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    console.print(table)
