"""Full fine-tuning: its weights are its own, wherever they were loaded from and whoever shares the backbone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.full_fine_tuning import FullFineTuning
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning, SettingError
from newcomer.export import FORMS
from newcomer.training.fit import evaluating

Folder = Callable[[str], Path]
HOW: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}


def test_every_weight_moves_and_the_backbone_s_own_stay(tiny: Folder, tasks: list[Examples]) -> None:
    learner = FullFineTuning(str(tiny("vit")), **HOW)
    frozen = {name: p.clone() for name, p in learner.backbone.model.named_parameters()}
    learner.learn(tasks[0])
    assert learner.adapter.weights.keys() == frozen.keys()
    still = [name for name, own in learner.adapter.weights.items() if torch.equal(own, frozen[name])]
    assert still == []
    assert all(torch.equal(p, frozen[name]) for name, p in learner.backbone.model.named_parameters())


def test_features_equal_those_of_a_model_with_the_merged_weights(tiny: Folder, tasks: list[Examples]) -> None:
    learner = FullFineTuning(str(tiny("vit")), **HOW).learn(tasks[0])
    other = Backbone(str(tiny("vit")))
    other.model.load_state_dict({name: own.detach() for name, own in learner.adapter.weights.items()})
    with evaluating(other):
        wanted = other(other.encode(tasks[0].inputs))
    torch.testing.assert_close(learner.features(tasks[0].inputs), wanted.clone(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_names_and_predictions_do_not_depend_on_other_learners_of_the_backbone(
    first: bool, tiny: Folder, tasks: list[Examples], tmp_path: Path
) -> None:
    shared = Backbone(str(tiny("vit")))
    other = None if first else SDLoRA(shared, rank=2, epochs=1)
    learner = FullFineTuning(shared, **HOW)
    other = other or SDLoRA(shared, rank=2, epochs=1)
    other.learn(tasks[1])
    learner.learn(tasks[0])
    before = other.logits(tasks[0].inputs)
    learner.learn(tasks[1])
    assert torch.equal(other.logits(tasks[0].inputs), before)
    learner.save(tmp_path / "store")
    alone = FullFineTuning(str(tiny("vit")), **HOW).learn(tasks[0]).learn(tasks[1])
    loaded = FullFineTuning.load(tmp_path / "store")
    for twin in (alone, loaded):
        assert twin.adapter.weights.keys() == learner.adapter.weights.keys()
        assert torch.equal(twin.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))


def test_only_what_is_named_is_trained_and_kept(tiny: Folder, tasks: list[Examples]) -> None:
    learner = FullFineTuning(str(tiny("vit")), weights=["layernorm"], **HOW).learn(tasks[0])
    assert learner.adapter.weights
    assert all("layernorm" in name for name in learner.adapter.weights)
    assert learner.info()["cost"]["parameters"] == 2 * 16 * len(learner.adapter.weights) / 2 + 2 * 17
    with pytest.raises(SettingError, match=r"weights = \['layrnorm'\] is in no weight's name of '.*'; names are"):
        FullFineTuning(str(tiny("vit")), weights=["layrnorm"])


def test_stages_that_train_nothing_keep_the_weights(tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    learner = FullFineTuning(str(tiny("vit")), **HOW).learn(tasks[0])
    early = learner.logits(tasks[0].inputs)
    with (
        pytest.warns(DataWarning, match="no predicted class changes"),
        pytest.warns(DataWarning, match="count twice"),
    ):
        learner.learn(tasks[0])  # knows all its classes
    learner.learn(tasks[1])
    learner.forget(learner.classes[0]).save(tmp_path / "store")
    first, second, third, last = (
        FullFineTuning.load(tmp_path / "store", stages=k).adapter.weights for k in range(1, 5)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first)
    assert all(torch.equal(third[name], last[name]) for name in first)
    assert torch.equal(FullFineTuning.load(tmp_path / "store", stages=1).logits(tasks[0].inputs), early)
    loaded = FullFineTuning.load(tmp_path / "store")
    assert torch.equal(loaded.logits(tasks[1].inputs), learner.logits(tasks[1].inputs))


def test_the_first_task_s_update_may_be_the_only_one(tiny: Folder, tasks: list[Examples]) -> None:
    how = {**HOW, "rank": 2, "learning_rate": 1e-2}
    rows = SequentialLoRA(str(tiny("vit")), adapted_tasks=1, **how).learn(tasks[0])
    lda = SequentialLoRA(str(tiny("vit")), adapted_tasks=1, head="lda", **how).learn(tasks[0])
    seen = rows.features(tasks[0].inputs)
    for learner in (rows, lda):
        learner.learn(tasks[1])
        assert torch.equal(learner.features(tasks[0].inputs), seen)
        assert learner.entries[0].info["adapted"] is True
    assert rows.loop is not None
    assert lda.loop is not None
    assert rows.loop.linear_head.weight[2:].any()  # trained on, on what is frozen
    assert not lda.loop.linear_head.weight[2:].any()
    never = SequentialLoRA(str(tiny("vit")), adapted_tasks=0, **how).learn(tasks[0])
    with evaluating(never.backbone):
        plain = never.backbone(never.backbone.encode(tasks[0].inputs))
    assert torch.equal(never.features(tasks[0].inputs), plain.clone())


def test_a_model_of_transformers_gives_the_same_logits(tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    shared = Backbone(str(tiny("vit")))
    learner = FullFineTuning(shared, **HOW)
    SDLoRA(shared, rank=2, epochs=1)  # its layers are in the way
    learner.learn(tasks[0]).learn(tasks[1])
    FORMS["transformers"](learner, tmp_path / "exported")
    model: Any = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "exported")
    with torch.inference_mode():
        found = model.eval()(**shared.encode(tasks[0].inputs)).logits
    torch.testing.assert_close(found.clone(), learner.logits(tasks[0].inputs), atol=1e-4, rtol=1e-4)
