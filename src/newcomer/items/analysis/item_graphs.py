"""Analysis of item graphs: typical graphs, nearest neighbours, changes by warm-up, learning curves.

The weight of a pair of fields is its edge in the item's first-order graph A¹ (`nn.ctr.feature_graph`), which is symmetric.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.simulated_clicks import PLANTED
from newcomer.errors import LearnerError, nearest
from newcomer.items.analysis.learning_curves import curves, item_rows
from newcomer.items.analysis.planted_interactions import planted_ranks
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.emerg import EmerG
from newcomer.items.networks.item_network import State
from newcomer.settings import Json
from newcomer.shapes import Float, Tensor
from newcomer.training.learner import Step

NEAREST, CHANGES = 8, 5
"""Lengths of the lists of nearest items and of changed pairs."""


def analyse(
    learner: ItemLearner, log: ClickLog | None = None, items: Sequence[str] | None = None
) -> Generator[Step, None, dict[str, Json]]:
    """Analyse the item graphs of a model; returns JSON. Changes nothing.

    - `fields`: `name` and `role` of the F fields, the axes of every graph; `known`: number of items;
    - `mean`, `deviation`: mean and std of all items' graphs, per edge; `moved`: mean |change| by warm-up, per edge;
    - `items`, per chosen item: its name, `item`; `why` it was chosen; its number of `events` in the log, and its field values,
      `about`; its current `graph`; the `cold` graph, generated from its fields alone; the pairs of fields that changed most since,
      `changes`, each with `one`, `other`, `before` and `after`; the items with the `nearest` graphs, each with its `cosine` after
      subtracting the mean graph; its `planted` pair, None if unknown; and its `curve`, see `items.analysis.learning_curves`, None
      without a log, and for an item with fewer than two events there;
    - `planted`: in simulated data, see `items.analysis.planted_interactions`; else None.

    Default `items`: those with the most, the median and the fewest events in the log, and the nearest of each; without a log the
    first, the middle and the last known item, and the nearest of each.
    Raises LearnerError for an unknown item, a log without known items, and a model without item graphs.
    """
    model = _with_graphs(learner)
    counts = None if log is None else _counts(model, log)
    graphs, cold = (
        model.graphs(model.state).cpu(),
        model.graphs(model.cold_state(model.item_features, len(model.known))).cpu(),
    )
    chosen = _requested(model, items) if items else _typical(list(model.known), counts, graphs)
    curves_of_items = {} if log is None else (yield from curves(model, log, list(chosen)))
    answers = _planted_pairs(model, log)
    return {
        "fields": [{"name": node.name, "role": node.role} for node in model.nodes],
        "known": len(model.known),
        "mean": graphs.mean(dim=0).tolist(),
        "deviation": graphs.std(dim=0, correction=0).tolist(),
        "moved": (graphs - cold).abs().mean(dim=0).tolist(),
        "items": [
            {
                **_item(model, number, graphs, cold),
                "why": why,
                "events": None if counts is None else int(counts[number]),
                "about": {} if log is None else _about(log, list(model.known)[number]),
                "planted": answers.get(number),
                "curve": curves_of_items.get(number),
            }
            for number, why in chosen.items()
        ],
        "planted": planted_ranks(answers, model.nodes, cold, graphs),
    }


def item_graph(learner: ItemLearner, state: State) -> list[list[float]] | None:
    """One item's graph, in the order of the learner's nodes; None without item graphs."""
    if not isinstance(learner, EmerG):
        return None
    graph: list[list[float]] = learner.graphs(state)[0].tolist()
    return graph


@dataclass(frozen=True)
class Edge:
    """Edge between two fields, its weight, and the weight that the item's features generate, before any event."""

    fields: tuple[str, str]
    weight: float
    generated: float


def heaviest_edges(learner: ItemLearner, state: State, initial: State, most: int) -> list[Edge] | None:
    """Edges of one item's graph, the largest weights first; None without item graphs."""
    graph, generated = item_graph(learner, state), item_graph(learner, initial)
    if graph is None or generated is None:
        return None
    names = [node.name for node in learner.nodes]
    edges = [
        Edge((names[i], names[j]), round(graph[i][j], 4), round(generated[i][j], 4))
        for j in range(len(names))
        for i in range(j)
    ]
    return sorted(edges, key=lambda edge: -edge.weight)[:most]


def _with_graphs(learner: ItemLearner) -> EmerG:
    if learner.known and not (isinstance(learner, EmerG) and "graph" in learner.state):
        raise LearnerError(
            f"the items of this model of '{learner.name}' have no graphs of their own; give one of 'emerg' whose graph is not "
            "'shared'"
        )
    if not isinstance(learner, EmerG) or not learner.known:
        raise LearnerError(f"{type(learner).__name__} has learned nothing yet; call learn first")
    return learner


def _item(model: EmerG, number: int, graphs: Tensor, cold: Tensor) -> dict[str, Json]:
    names = list(model.known)
    return {
        "item": names[number],
        "graph": graphs[number].tolist(),
        "cold": cold[number].tolist(),
        "changes": list(_changes(model, cold[number], graphs[number])),
        "nearest": [{"item": names[n], "cosine": cosine} for n, cosine in _nearest(graphs, number, NEAREST)],
    }


def _about(log: ClickLog, name: str) -> dict[str, str]:
    """The values of the item's fields in the log, '' for none."""
    if name not in log.items.ids:
        return {}
    number, about = log.items.ids.index(name), {}
    for field in log.schema.of("item"):
        column = log.items.columns[field.name]
        values = np.atleast_1d(column.values[number])
        known = values[~np.isnan(values)] if field.is_numeric else values[values >= 0]
        about[field.name] = ", ".join(f"{value:g}" if field.is_numeric else column.names[value] for value in known)
    return about


def _counts(learner: ItemLearner, log: ClickLog) -> NDArray[np.int64]:
    """Number of events of each known item in the log."""
    numbers = item_rows(learner, log)
    if (numbers < 0).all():
        raise LearnerError("none of the events is about an item that the model knows; give a log of its items")
    return np.bincount(numbers[numbers >= 0], minlength=len(learner.known))


def _requested(learner: ItemLearner, items: Sequence[str]) -> dict[int, str]:
    for name in items:
        if name not in learner.known:
            raise LearnerError(f"item '{name}' is not known; {nearest(name, learner.known)}")
    return {learner.known[name]: "asked for" for name in items}


def _typical(names: Sequence[str], counts: NDArray[np.int64] | None, graphs: Tensor) -> dict[int, str]:
    """Typical items' rows, with the reason for each."""
    order = np.arange(len(names))
    why = ("the first that was known", "the middle one of all known", "the last that came to be known")
    if counts is not None:
        order = np.flatnonzero(counts)
        order = order[np.argsort(-counts[order], kind="stable")]
        why = ("most events", "the median number of events", "fewest events")
    chosen: dict[int, str] = {}
    for position, reason in zip((0, len(order) // 2, len(order) - 1), why, strict=True):
        chosen.setdefault(int(order[position]), reason)
    for number in list(chosen):
        for other, _ in _nearest(graphs, number, 1):
            chosen.setdefault(other, f"its graph is the nearest to that of {names[number]}")
    return chosen


def _nearest(graphs: Float[Tensor, "item field other"], number: int, limit: int) -> list[tuple[int, float]]:
    """Items with the highest cosine similarity of graphs minus the mean graph; nearest first."""
    centred = functional.normalize((graphs - graphs.mean(dim=0)).flatten(1), dim=1)
    cosines = (centred @ centred[number]).clamp(-1, 1)
    cosines[number] = -torch.inf
    best = cosines.topk(min(limit, len(graphs) - 1))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _changes(learner: ItemLearner, cold: Tensor, now: Tensor) -> Iterator[dict[str, Json]]:
    fields = [node.name for node in learner.nodes]
    one, other = torch.triu_indices(len(fields), len(fields), offset=1)
    before, after = cold[one, other], now[one, other]
    for pair in (after - before).abs().argsort(descending=True, stable=True)[:CHANGES].tolist():
        if after[pair] != before[pair]:
            names = {"one": fields[one[pair]], "other": fields[other[pair]]}
            yield names | {"before": before[pair].item(), "after": after[pair].item()}


def _planted_pairs(learner: ItemLearner, log: ClickLog | None) -> Mapping[int, str]:
    """The planted pairs by item row, from the log or the entries, if the schema has both fields."""
    planted = [dict(zip(entry.info["items"], entry.info.get(PLANTED, ()), strict=False)) for entry in learner.entries]
    if log is not None and PLANTED in log.items.columns:
        planted.append(dict(zip(log.items.ids, log.items.columns[PLANTED].texts(), strict=True)))
    pairs = {f"{one.name} × {other.name}" for one, other in combinations(learner.nodes, 2)}
    known = {name: pair for part in planted for name, pair in part.items() if name in learner.known}
    return {learner.known[name]: pair for name, pair in known.items() if pair in pairs}
