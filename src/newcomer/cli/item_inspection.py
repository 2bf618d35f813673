"""`newcomer inspect` for click models and their items."""

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from newcomer.cli.aligned import print_pairs, print_table, settings_line
from newcomer.cli.items import open_service
from newcomer.cli.program import say
from newcomer.data.vocabulary import HashBuckets, Vocabulary
from newcomer.items.analysis.item_graphs import heaviest_edges
from newcomer.items.calibration import Calibration
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.service import ItemService
from newcomer.printable import counted, printable_json
from newcomer.settings import Json
from newcomer.store.folder import Store

EDGES = 10
"""Number of edges shown of an item's graph, the largest weights first."""


def show_items(store: Path, states: str | None, json_: bool) -> None:
    """Show a click model: settings, items by phase, fields."""
    with _open_read_only(store, states) as service:
        phases, fields, size = _phases(service), _fields(service), _numbers(service)
    manifest = Store(store).manifest()
    if json_:
        found = {
            "learner": manifest.learner,
            "settings": manifest.settings,
            "model": service.model,
            "items": sum(phase["items"] for phase in phases.values()),
            "events": sum(phase["events"] for phase in phases.values()),
            "phases": phases,
            "fields": fields,
            "parameters per item": size,
            "calibration": service.learner.calibration.to_json(),
        }
        print(printable_json(found, indent=1))
        return
    say(f"{store}: {manifest.learner}, format {manifest.format}")
    print_pairs(
        {
            "model": f"{service.model} (fingerprint of the weights)",
            "settings": settings_line(manifest.settings),
            "parameters per item": f"{size:,}",
            "click probabilities": _calibration(service.learner),
        }
    )
    print_table(("phase", "items", "events"), [(name, p["items"], p["events"]) for name, p in phases.items()])
    head = ("field", "role", "kind", "known values")
    print_table(head, [(f["name"], f["role"], f["kind"], f.get("hashed", f["values"])) for f in fields])


def show_item(store: Path, item: str, states: str | None, json_: bool) -> None:
    """Show one item: phase, events, and the edges with the largest weights of its graph, if any."""
    with _open_read_only(store, states) as service:
        row, state = service.look_up(item)
        initial, _ = service.initial_state(item)
    edges = heaviest_edges(service.learner, state, initial, EDGES) or []
    shapes = {key: list(value.shape[1:]) for key, value in state.items()}
    if json_:
        info = {"model": service.model, "phase": row.phase, "events": row.events, "version": row.version}
        info |= {"updated_at": row.updated_at, "shapes": shapes}
        graph = {"edges": [asdict(edge) for edge in edges]} if edges else {}
        print(printable_json({"item": item} | info | graph, indent=1))
        return
    say(f"{store}: item '{item}'")
    print_pairs(
        {
            "phase": row.phase,
            "events": f"{row.events:,}",
            "changes": f"{row.version:,}",
            "last change": str(row.updated_at),
            "parameters": ", ".join(f"{key} {' × '.join(map(str, shape))}" for key, shape in shapes.items()),
            "model": f"{service.model} (fingerprint of the weights)",
        }
    )
    if edges:
        rows = [(" × ".join(edge.fields), f"{edge.generated:.3f}", f"{edge.weight:.3f}") for edge in edges]
        print_table(("edge", "generated from its features", f"adapted to {counted(row.events, 'event')}"), rows)


def _open_read_only(store: Path, states: str | None) -> AbstractContextManager[ItemService]:
    """The model in service; creates no database file if there is none."""
    return open_service(store, states or (None if (store / "items.db").exists() else "sqlite://"))


def _phases(service: ItemService) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for head in service.headers().values():
        phase = found.setdefault(head.phase, {"items": 0, "events": 0})
        phase["items"] += 1
        phase["events"] += head.events
    return dict(sorted(found.items()))


def _calibration(learner: ItemLearner) -> str:
    """How probabilities come from the network's logits."""
    fitted, rate = learner.fitted_calibration, learner.probabilities.negative_rate
    parts = [
        f"{events} events: {scale:.2f}{'' if scale == upper else f' to {upper:.2f}'} · logit {offset:+.2f}"
        for events, scale, upper, offset in zip(fitted.events, fitted.scale, fitted.upper, fitted.offset, strict=True)
    ]
    text = "not calibrated" if fitted == Calibration() else f"calibrated ({'; '.join(parts)})"
    return text if rate == 1 else f"{text}; of the full stream, of whose negatives {rate:g} are in the log"


def _fields(service: ItemService) -> list[dict[str, Json]]:
    """Fields with their numbers of known values; None for the item id, for numeric fields, and for hashed users."""
    encoder = service.learner.encoder
    found = []
    for node in service.learner.nodes:
        coding = encoder.codings.get(node.name)
        values = len(coding.names) if isinstance(coding, Vocabulary) else None
        field: dict[str, Json] = {"name": node.name, "role": node.role, "kind": node.kind, "values": values}
        found.append(field | ({"hashed": str(coding)} if isinstance(coding, HashBuckets) else {}))
    return found


def _numbers(service: ItemService) -> int:
    return sum(value[0].numel() for value in service.learner.state.values())
