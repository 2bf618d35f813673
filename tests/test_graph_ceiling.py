"""What item graphs can gain in a log: much where interactions are planted item by item, nothing where none are."""

import functools
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.items.analysis.graph_ceiling import GraphCeiling, graph_ceiling
from shell import Shell
from test_item_analysis import ended


def world(planted: bool) -> ClickLog:
    return simulate_click_log(old_items=60, new_items=1, old_events=120, new_events=20, users=200, planted=planted)


def frame(log: ClickLog) -> pl.DataFrame:
    """The log as a table."""
    fields = {field.name: log.items.columns[field.name].take(log.item) for field in log.schema.of("item")}
    fields |= {field.name: log.users.columns[field.name].take(log.user) for field in log.schema.of("user")}
    fields |= {field.name: log.context[field.name] for field in log.schema.of("context")}
    ids = {"item": [log.items.ids[n] for n in log.item], "user": [log.users.ids[n] for n in log.user]}
    columns = {name: column.texts() for name, column in fields.items()}
    return pl.DataFrame({**ids, **columns, "label": log.label.astype(int), "time": log.time})


@functools.cache
def ceiling(planted: bool) -> GraphCeiling:
    return ended(graph_ceiling(world(planted)))


@pytest.mark.always
def test_planted_interactions_are_found_and_others_are_not() -> None:
    found = ceiling(planted=True)
    assert found.gain > 0.04
    assert found.low < found.gain < found.high
    assert found.can_pay
    assert (found.items, found.events) == (60, 7200)
    assert found.held_out == pytest.approx(7200 / 5, rel=0.1)
    nothing = ceiling(planted=False)
    assert not nothing.can_pay
    assert nothing.gain < 0.01


def test_the_same_seed_gives_the_same_answer() -> None:
    assert ended(graph_ceiling(world(planted=False))) == ceiling(planted=False)


def test_too_few_items_or_fields_are_refused() -> None:
    few = simulate_click_log(old_items=5, new_items=1, seed=1)
    with pytest.raises(DataError, match="6 items have 40 events or more"):
        ended(graph_ceiling(few))
    rare = world(planted=True)
    with pytest.raises(
        DataError, match=r"the fifth of the events that is held out has \d clicks among 14\d\d; .* takes 50 clicks"
    ):
        ended(graph_ceiling(replace(rare, label=(np.arange(len(rare)) % 1000 == 0).astype(np.float32))))
    bare = ClickLog(Schema("item", "user"), few.items, few.users, {}, few.item, few.user, few.label, few.time, few.row)
    with pytest.raises(DataError, match="two fields beside the item's id"):
        ended(graph_ceiling(bare))


def test_the_command_says_whether_graphs_can_pay(shell: Shell) -> None:
    frame(world(planted=True)).write_csv(shell.folder / "clicks.csv")
    code, out, err = shell.call("inspect", "clicks.csv", "--graphs")
    assert (code, err) == (0, "")
    assert "item graphs can pay" in out
    assert "--schema a.toml is for --graphs" in shell.fails("inspect", "clicks.csv", "--schema", "a.toml")
    assert "no --write" in shell.fails("inspect", "clicks.csv", "--graphs", "--write", "a.toml")


@pytest.mark.slow
def test_the_command_answers_in_json(shell: Shell) -> None:
    frame(world(planted=True)).write_csv(shell.folder / "clicks.csv")
    found = json.loads(shell.call("inspect", "clicks.csv", "--graphs", "--json")[1])
    assert found["can_pay"]
    assert found["gain"] == found["own"] - found["shared"]
