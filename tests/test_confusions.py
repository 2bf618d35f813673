"""Confusions of held-out examples: counted as they are predicted, kept in a store, and by class whatever is forgotten."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from newcomer import EASE, KLDA, FrozenBackbone, RanPAC
from newcomer.classes.confusions import Confusions, HeldOutPredictions
from newcomer.data.examples import Examples


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1), st.permutations(range(6)), st.integers(1, 6)
)
def test_counts_of_any_classes_are_those_of_a_plain_loop(
    pairs: list[tuple[int, int]], order: list[int], kept: int
) -> None:
    target, predicted = torch.tensor(pairs).T
    found = Confusions.none().with_predictions(HeldOutPredictions(target, predicted))
    classes = order[:kept]
    moved = found.at(classes)
    own = [(classes.index(a), classes.index(b) if b in classes else -1) for a, b in pairs if a in classes]
    numbers = Counter[tuple[int, int]]()
    for one, other, number in moved.counts.tolist():
        numbers[one, other] += number
    assert numbers == Counter(own)
    assert moved.shares(list(range(kept))).equal(found.shares(classes))
    for row, k in zip(found.shares(classes), classes, strict=True):
        of_class = [b for a, b in pairs if a == k]
        wanted = [of_class.count(other) / max(1, len(of_class)) for other in classes]
        assert row.tolist() == pytest.approx(wanted)
    wrong = {k: sum(a != b and k in (a, b) for a, b in pairs) for k in {a for a, _ in pairs}}
    most = sorted(wrong, key=lambda k: (-wrong[k], k))[:kept]
    assert found.most_confused(kept) == sorted(most)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(FrozenBackbone, {}), (RanPAC, {}), (KLDA, {}), (EASE, {"epochs": 1})],
    ids=lambda one: str(one),
)
def test_two_classes_of_the_same_inputs_are_confused_and_others_are_not(
    kind: Any, settings: dict[str, Any], tasks: list[Examples], tmp_path: Path
) -> None:
    first, other = dict.fromkeys(tasks[0].labels)
    labels = [["even", "odd"][n % 2] if label == first else other for n, label in enumerate(tasks[0].labels)]
    learner = kind("micro-vit", **settings).learn(Examples(tasks[0].inputs, labels)).learn(tasks[1])
    counts = learner.memory.confusions.counts
    at = {name: k for k, name in enumerate(learner.classes)}
    found = {(a, b): n for a, b, n in counts.tolist()}
    assert sum(found.get((at[a], at[b]), 0) for a, b in (("even", "odd"), ("odd", "even"))) > 0
    assert {a for a, _ in found} == set(at.values())
    learner.save(tmp_path / "store")
    assert kind.load(tmp_path / "store").memory.confusions.counts.equal(counts)
    shares = learner.memory.confusions.shares([at["odd"], at["even"]])
    learner.forget(other)
    at = {name: k for k, name in enumerate(learner.classes)}
    after = learner.memory.confusions.shares([at["odd"], at["even"]])
    assert after.equal(shares)
    learner.forget("even")
    assert set(learner.memory.confusions.counts[:, 0].tolist()) == set(range(len(learner.classes)))
