"""Analysis of click models: equal to direct computations with graphs and scores."""

import itertools
import json
import re
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.datasets.simulated_clicks import PLANTED, SCHEMA, simulate_click_log
from newcomer.data.schema import Schema
from newcomer.errors import LearnerError, StoreError
from newcomer.experiments.report.item_analysis import write_item_analysis
from newcomer.items.analysis.item_graphs import CHANGES, NEAREST, analyse
from newcomer.items.analysis.learning_curves import EVENTS
from newcomer.items.analysis.planted_interactions import planted_ranks
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.metrics.calibration import logloss
from newcomer.metrics.ranking import auc
from newcomer.settings import Json
from newcomer.streams.cold_start import ColdStart, events_before
from newcomer.training.learner import Step

Found = TypeVar("Found")
SHORT: dict[str, Any] = {"width": 4, "layers": 1, "pretrain_epochs": 1, "meta_epochs": 1, "warmup_steps": 3}


def ended(steps: Generator[Step, None, Found]) -> Found:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Found = end.value
            return found


def look(learner: ItemLearner, log: ClickLog | None = None, items: Sequence[str] | None = None) -> dict[str, Json]:
    return ended(analyse(learner, log, items))


@pytest.fixture(scope="module")
def log() -> ClickLog:
    """8 old items of 40 events and 5 new ones of 24, of 2 kinds and 2 brands, so that some share all their fields."""
    return simulate_click_log(old_items=8, old_events=40, new_items=5, new_events=24, users=30, kinds=2, brands=2)


@pytest.fixture(scope="module")
def stream(log: ClickLog) -> ColdStart:
    return ColdStart(log, min_old_events=30, phase_events=4)


@pytest.fixture(scope="module")
def cold(stream: ColdStart) -> EmerG:
    return EmerG(stream.schema, **SHORT).learn(stream.old_log).add(stream.new.items)


@pytest.fixture(scope="module")
def warm(stream: ColdStart) -> EmerG:
    """The first three new items have had events, the others none."""
    learner = EmerG(stream.schema, **SHORT).learn(stream.old_log).add(stream.new.items)
    names = stream.new.items.ids[:3]
    chosen = [n for n, name in enumerate(stream.new.phases[0].items.ids) if name in names]
    return learner.warm(stream.new.phases[0].of_items(np.array(chosen)))


def test_graphs_are_those_that_are_used_and_those_of_before_the_first_event(
    cold: EmerG, warm: EmerG, log: ClickLog
) -> None:
    new = list(warm.known)[8:]
    for item in look(warm, log, new)["items"]:
        assert np.round(item["graph"], 4).tolist() == warm.graph_of(item["item"])
        assert np.round(item["cold"], 4).tolist() == cold.graph_of(item["item"])
    changes = [bool(item["changes"]) for item in look(warm, log, new)["items"]]
    assert changes == [True] * 3 + [False] * 2


def test_changes_are_the_edges_that_moved_furthest(warm: EmerG) -> None:
    (item,) = look(warm, items=[list(warm.known)[8]])["items"]
    names = [node.name for node in SCHEMA.nodes]
    pairs = list(itertools.combinations(range(len(names)), 2))
    moved = sorted((abs(item["graph"][m][n] - item["cold"][m][n]) for m, n in pairs), reverse=True)
    for place, change in enumerate(item["changes"]):
        m, n = names.index(change["one"]), names.index(change["other"])
        assert change["before"] == item["cold"][m][n]
        assert change["after"] == item["graph"][m][n]
        assert abs(change["after"] - change["before"]) == pytest.approx(moved[place])
    assert len(item["changes"]) == min(CHANGES, sum(move > 0 for move in moved))


def test_nearest_are_those_of_looking_at_every_item(warm: EmerG) -> None:
    names = list(warm.known)
    graphs = warm.graphs(warm.state).double().numpy().reshape(len(names), -1)
    graphs -= graphs.mean(axis=0)
    for item in look(warm, items=names)["items"]:
        own = graphs[names.index(item["item"])]
        cosines = {
            name: float(own @ other / np.linalg.norm(own) / np.linalg.norm(other))
            for name, other in zip(names, graphs, strict=True)
            if name != item["item"]
        }
        assert [near["cosine"] for near in item["nearest"]] == pytest.approx(
            sorted(cosines.values(), reverse=True)[:NEAREST], abs=1e-4
        )
        for near in item["nearest"]:
            assert near["cosine"] == pytest.approx(cosines[near["item"]], abs=1e-4)


def test_untouched_items_with_the_same_fields_are_nearest(cold: EmerG, log: ClickLog) -> None:
    fields = [log.items.columns[name].texts() for name in ("kind", "brand")]
    kinds = dict(zip(log.items.ids, zip(*fields, strict=True), strict=True))
    new = list(cold.known)[8:]
    twins = [name for name in new if [kinds[other] for other in new].count(kinds[name]) > 1]
    assert twins
    for item in look(cold, items=twins)["items"]:
        assert kinds[item["nearest"][0]["item"]] == kinds[item["item"]]
        assert item["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_a_learning_curve_equals_adding_and_warming_the_item_anew(
    warm: EmerG, stream: ColdStart, log: ClickLog
) -> None:
    """Each point against an item of the same fields that is added, given the first events, and asked for the others."""
    name = list(warm.known)[8]
    number = log.items.ids.index(name)
    (item,) = look(warm, log, [name])["items"]
    curve = item["curve"]
    assert curve["events"] == [n for n in EVENTS if n <= 12]
    assert curve["asked"] == 24 - 10
    for events, loss, area in zip(curve["events"], curve["logloss"], curve["auc"], strict=True):
        anew = replace(log.items, ids=tuple("anew" if n == name else n for n in log.items.ids))
        mine = replace(log, items=anew).take(log.item == number)
        mine = mine.take(np.argsort(mine.time))
        learner = EmerG(stream.schema, **SHORT).learn(stream.old_log)
        learner.add(
            EntityTable(("anew",), {key: column.take(np.array([number])) for key, column in log.items.columns.items()})
        )
        if events:
            learner.warm(mine.take(np.arange(len(mine)) < events))
        rest = mine.take(np.arange(len(mine)) >= 10)
        assert loss == pytest.approx(logloss(rest.label, learner.score(rest)), rel=1e-4)
        assert area == pytest.approx(auc(rest.label, learner.score(rest)), abs=1e-9)


def test_items_looked_at_together_are_items_looked_at_one_by_one(warm: EmerG, log: ClickLog) -> None:
    names = list(warm.known)[5:10]
    for name, together in zip(names, look(warm, log, names)["items"], strict=True):
        (alone,) = look(warm, log, [name])["items"]
        assert alone["curve"]["logloss"] == pytest.approx(together["curve"]["logloss"], rel=1e-4)
        assert {key: value for key, value in alone.items() if key != "curve"} == {
            key: value for key, value in together.items() if key != "curve"
        }


def test_analysis_changes_nothing(warm: EmerG, log: ClickLog) -> None:
    before = {key: value.clone() for key, value in warm.state.items()}
    weights = {key: value.clone() for key, value in warm.network.state_dict().items()}
    entries = len(warm.entries)
    json.dumps(look(warm, log), allow_nan=False)
    assert all(torch.equal(value, before[key]) for key, value in warm.state.items())
    assert all(torch.equal(value, weights[key]) for key, value in warm.network.state_dict().items())
    assert len(warm.entries) == entries
    assert all(parameter.requires_grad for parameter in warm.network.parameters())


def test_a_schema_without_any_field_is_enough(log: ClickLog, tmp_path: Path) -> None:
    bare = replace(log, schema=Schema("item", "user"))
    found = look(EmerG(bare.schema, **SHORT).learn(bare), bare)
    assert [field["name"] for field in found["fields"]] == ["item", "user"]
    assert all(item["curve"] and item["about"] == {} for item in found["items"])
    write_item_analysis(found | {"items": found["items"][:1]}, tmp_path)


def test_item_statistics_equal_those_of_the_log(warm: EmerG, log: ClickLog) -> None:
    for item in look(warm, log)["items"]:
        at = log.items.ids.index(item["item"])
        assert item["about"] == {name: log.items.columns[name].texts()[at] for name in ("kind", "brand")}


def test_the_items_of_choice_have_most_median_and_fewest_events(warm: EmerG, log: ClickLog) -> None:
    counts = np.bincount(log.item)
    uneven = log.take(events_before(log) < 2 + np.arange(len(counts))[log.item])
    found = look(warm, uneven)
    events = sorted(np.bincount(uneven.item).tolist(), reverse=True)
    assert [item["events"] for item in found["items"][:3]] == [events[0], events[len(events) // 2], events[-1]]
    near = {item["nearest"][0]["item"] for item in found["items"][:3]}
    assert {item["item"] for item in found["items"]} == {item["item"] for item in found["items"][:3]} | near


def test_without_a_log_there_are_graphs_and_no_curves(warm: EmerG, tmp_path: Path) -> None:
    found = look(warm)
    assert {item["item"] for item in found["items"][:3]} == {list(warm.known)[n] for n in (0, 6, 12)}
    assert all(item["curve"] is None and item["events"] is None for item in found["items"])
    assert found["planted"]["items"] == 5  # those of the new items, which the model wrote down itself
    write_item_analysis(found | {"items": found["items"][:1]}, tmp_path)
    assert not list(tmp_path.glob("*curve.svg"))


def test_an_item_of_one_event_has_no_curve(warm: EmerG, log: ClickLog) -> None:
    names = list(warm.known)[:2]
    few = log.take((log.item != log.items.ids.index(names[0])) | (events_before(log) < 1))
    first, second = look(warm, few, names)["items"]
    assert first["curve"] is None
    assert first["events"] == 1
    assert second["curve"]
    only = few.take(few.item == log.items.ids.index(names[0]))
    assert look(warm, only, names)["items"][1]["curve"] is None
    (unseen,) = look(warm, only, names[1:])["items"]
    assert (unseen["events"], unseen["curve"]) == (0, None)


def by_hand(weights: dict[tuple[int, int], float]) -> torch.Tensor:
    graph = torch.eye(len(SCHEMA.nodes))
    for (one, other), weight in weights.items():
        graph[one, other] = graph[other, one] = weight
    return graph


def test_a_planted_pair_is_found_when_no_other_weighs_as_much() -> None:
    fields = [node.name for node in SCHEMA.nodes]
    taste, age, hour = (fields.index(name) for name in ("taste", "age", "hour"))
    pair, other = (taste, age), (age, hour)
    graphs = torch.stack([by_hand({pair: a, other: b}) for a, b in ((0.9, 0.5), (0.5, 0.9), (0.7, 0.7), (0.0, 0.3))])
    answers = {0: "taste × age", 1: "taste × age", 2: "taste × age", 3: "taste × age"}
    cold = torch.stack([by_hand({other: 0.1})] * 4)
    found = planted_ranks(answers, SCHEMA.nodes, cold, graphs)
    assert found is not None
    pairs = len(fields) * (len(fields) - 1) // 2
    ranks = [1, 2, 1.5, (2 + pairs) / 2]
    assert (found["items"], found["pairs"], found["found"], found["found cold"]) == (4, pairs, 1, 0)
    (kind,) = found["kinds"]
    assert kind["rank"] == pytest.approx(np.mean(ranks))
    assert found["names"] == ["taste × age"]
    assert kind["weights"] == pytest.approx([0.525])
    assert (kind["other"], kind["weight"]) == ("age × hour", pytest.approx(0.6))
    assert planted_ranks({}, SCHEMA.nodes, cold, graphs) is None


def test_graphs_with_the_planted_pair_on_top_are_all_found_and_others_are_not(stream: ColdStart, log: ClickLog) -> None:
    learner = EmerG(stream.schema, **SHORT).learn(stream.old_log).add(stream.new.items)
    answers = dict(zip(log.items.ids, log.items.columns[PLANTED].texts(), strict=True))
    fields = [node.name for node in SCHEMA.nodes]
    for name, number in learner.known.items():
        one, other = (fields.index(field) for field in answers[name].split(" × "))
        learner.state["graph"][number] = by_hand({(one, other): 2.0 if number else -2.0})
    found = look(learner, log)["planted"]
    assert (found["items"], found["found"]) == (13, 12)
    assert sum(kind["items"] for kind in found["kinds"]) == 13
    assert sum(kind["found"] for kind in found["kinds"]) == 12
    assert set(found["names"]) == set(answers.values())


def test_models_without_graphs_are_refused(stream: ColdStart) -> None:
    short = {key: SHORT[key] for key in ("width", "pretrain_epochs", "warmup_steps")}
    for learner in (IdTuning(stream.schema, **short), EmerG(stream.schema, **SHORT, graph="shared")):
        with pytest.raises(
            LearnerError, match="have no graphs of their own; give one of 'emerg' whose graph is not 'shared'"
        ):
            look(learner.learn(stream.old_log))


def test_what_cannot_be_analysed_is_one_line(warm: EmerG, stream: ColdStart, log: ClickLog) -> None:
    with pytest.raises(LearnerError, match="has learned nothing yet; call learn first"):
        look(EmerG(stream.schema, **SHORT))
    with pytest.raises(LearnerError, match="item 'i00003' is not known; did you mean 'i0003'"):
        look(warm, items=["i00003"])
    strange = replace(log, items=replace(log.items, ids=tuple(f"x{name}" for name in log.items.ids)))
    with pytest.raises(LearnerError, match="none of the events is about an item that the model knows; give a log"):
        look(warm, strange)


@pytest.mark.parametrize("planted", [True, False])
def test_the_page_has_all_results_and_is_self_contained(
    planted: bool, warm: EmerG, log: ClickLog, tmp_path: Path
) -> None:
    found = look(warm, log, list(warm.known)[7:9])
    if not planted:
        found = {**found, "planted": None, "items": [{**item, "planted": None} for item in found["items"][:1]]}
    write_item_analysis(found, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8")) == found
    pictures = sorted(tmp_path.glob("*.svg"))
    assert len(pictures) == 3 * len(found["items"]) + 1 + planted
    for picture in pictures:
        svg = picture.read_text(encoding="utf-8")
        ElementTree.fromstring(svg)
        assert svg in page
    assert ("one planted interaction" in page) == planted
    for item in found["items"]:
        assert f"<h2>{item['item']} · {item['events']} events</h2>" in page
    assert not re.search(r"(src|href)=.http|<script|url\(http", page)


def test_names_of_items_are_text_and_not_markup(warm: EmerG, log: ClickLog, tmp_path: Path) -> None:
    found = look(warm, items=list(warm.known)[:1])
    found["items"][0]["item"] = "<script>alert(1)</script>"
    write_item_analysis(found, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_folder_that_cannot_be_written_is_one_line(warm: EmerG, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="choose another --out"):
        write_item_analysis(look(warm, items=list(warm.known)[:1]), tmp_path / "taken")
