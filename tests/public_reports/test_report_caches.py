"""Caches are never older than what they were computed from, and are kept with a store."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from newcomer.classes.heads import make_head
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.nn.heads.gaussian import RealignedGaussian
from newcomer.nn.heads.kernel import KernelRidge
from newcomer.nn.heads.random_features import RidgeStatistics

EDITS: dict[str, Callable[[SDLoRA], object]] = {
    "magnitudes": lambda m: m.lora.magnitudes.data.mul_(3),
    "one magnitude": lambda m: m.lora.magnitudes.data[0].add_(2),
    "up": lambda m: m.lora.up[1].data.mul_(3),
    "down": lambda m: [down.data.zero_() for down in m.lora.down],
    "frozen": lambda m: m.backbone.model.get_submodule(f"{m.backbone.projections[0]}.frozen").weight.data.mul_(1.5),  # type: ignore[operator]
    "copied": lambda m: m.lora.up[0].data.copy_(torch.ones_like(m.lora.up[0])),
}


def trained(tasks: list[Examples], **settings: Any) -> SDLoRA:
    return SDLoRA("micro-vit", rank=3, epochs=2, learning_rate=0.02, **settings).learn(tasks[0]).learn(tasks[1])


@pytest.fixture(scope="module")
def once(tasks: list[Examples]) -> SDLoRA:
    """A learner of which every test edits a copy."""
    return trained(tasks)


@pytest.mark.parametrize("edit", EDITS)
def test_weights_that_are_edited_through_data_are_folded_anew(edit: str, once: SDLoRA, tasks: list[Examples]) -> None:
    """Somebody scales a model's factors in place, by `.data`: the old weights went on answering."""
    learner, inputs = deepcopy(once), tasks[0].inputs
    before = learner.features(inputs)
    EDITS[edit](learner)
    seen = learner.features(inputs)
    assert not torch.equal(seen, before)
    learner.lora.refold()
    assert torch.equal(learner.features(inputs), seen)


def test_a_single_number_is_folded_when_that_is_said(once: SDLoRA, tasks: list[Examples]) -> None:
    """What no sample meets is taken up by `refold`."""
    learner, inputs = deepcopy(once), tasks[0].inputs
    before = learner.features(inputs)
    learner.lora.up[0].data[1, 1] += 5
    learner.lora.refold()
    assert not torch.equal(learner.features(inputs), before)


def test_a_linear_head_predicts_with_its_trained_rows(tasks: list[Examples]) -> None:
    """The rows of the head are edited after an answer: the next one is by the new rows."""
    learner, inputs = trained(tasks, head="linear"), tasks[0].inputs
    before = learner.logits(inputs)
    assert learner.loop is not None
    learner.loop.linear_head.weight.data.mul_(2)
    learner.loop.linear_head.bias.data.mul_(2)
    torch.testing.assert_close(learner.logits(inputs), 2 * before)


CASES: list[tuple[Any, dict[str, Any], Any, str]] = [
    (FrozenBackbone, {"head": "gaussian"}, RealignedGaussian, "fold"),
    (FrozenBackbone, {"head": "kernel"}, KernelRidge, "fold"),
    (RanPAC, {"projection_dim": 60}, RidgeStatistics, "solved"),
]


@pytest.mark.parametrize(("kind", "settings", "fits", "method"), CASES)
def test_a_store_that_is_opened_fits_nothing(
    kind: Any,
    settings: dict[str, Any],
    fits: Any,
    method: str,
    tasks: list[Examples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every `predict` fitted the head anew: of 77 classes seven seconds before the first answer."""
    learner = kind("micro-vit", **settings).learn(tasks[0]).learn(tasks[1])
    learner.save(tmp_path / "store")
    learner.forget(learner.classes[1]).save(tmp_path / "less")
    before, after = learner.logits(tasks[0].inputs), kind.load(tmp_path / "store").logits(tasks[0].inputs)
    monkeypatch.setattr(fits, method, lambda *_: pytest.fail("fitted again"))
    assert torch.equal(kind.load(tmp_path / "store").logits(tasks[0].inputs), after)
    assert torch.equal(kind.load(tmp_path / "less").logits(tasks[0].inputs), before)
    monkeypatch.undo()
    earlier = kind.load(tmp_path / "store", stages=1)
    assert torch.equal(
        earlier.logits(tasks[0].inputs), kind("micro-vit", **settings).learn(tasks[0]).logits(tasks[0].inputs)
    )


def test_another_head_or_shrinkage_is_fitted(tasks: list[Examples], tmp_path: Path) -> None:
    """What is kept belongs to the head that it was fitted for."""
    made = trained(tasks, head="gaussian", shrinkage=0.3)
    made.save(tmp_path / "store")
    for change in ({"head": "kernel"}, {"head": "lda"}, {"shrinkage": 0.9}):
        found = SDLoRA.load(tmp_path / "store", **change)
        assert made.entries[-1].state is not None
        assert not any(torch.equal(found.linear_classifier()[0], kept) for kept in made.entries[-1].state.values())
        assert found.loop is not None
        name, rows = found.classifier.head_name, found.loop.linear_head.rows()
        head = make_head(name, found.classifier.settings.shrinkage)
        wanted = found.memory.fold(head, rows)[0] / found.memory.temperature(name)
        assert torch.equal(found.linear_classifier()[0], wanted)


@pytest.mark.parametrize(("kind", "settings"), [case[:2] for case in CASES])
def test_a_store_without_it_is_read_as_ever(kind: Any, settings: dict[str, Any], tasks: list[Examples]) -> None:
    """Stores that hold no fitted head, as all did, give the same answers."""
    learner = kind("micro-vit", **settings).learn(tasks[0])
    other = kind("micro-vit", **settings)
    (entry,) = learner.entries
    plain = {key: t for key, t in entry.state.items() if not key.startswith("fitted.") and key != "ranpac.weight"}
    assert len(plain) < len(entry.state)
    other._apply_entries([type(entry)(entry.name, entry.tensors, entry.info, plain)])
    assert torch.equal(other.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))
