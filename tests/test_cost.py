"""Costs are counted: against a tiny encoder by hand, and against the plain backbone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from newcomer.backbones.backbone import Backbone
from newcomer.classes.cost import flops
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.cl_lora import CLLoRA
from newcomer.classes.methods.e2_lora import E2LoRA
from newcomer.classes.methods.ease import EASE
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.full_fine_tuning import FullFineTuning
from newcomer.classes.methods.inf_lora import InfLoRA
from newcomer.classes.methods.klda import KLDA
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.classes.methods.slca import SLCA
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning

Folder = Callable[[str], Path]
SETTINGS: dict[str, Any] = {"rank": 2, "epochs": 1, "batch_size": 8}


def vit_by_hand(pixels: int, patch: int, width: int, inner: int, layers: int) -> int:
    """Patches, and in every layer query, key, value and output, the products of attention, and the feed-forward part."""
    patches = (pixels // patch) ** 2
    tokens = patches + 1
    layer = tokens * width * (4 * width + 2 * inner) + 2 * tokens * tokens * width
    return 2 * (patches * 3 * patch**2 * width + layers * layer)


def test_the_paper_s_encoder_costs_what_the_paper_says() -> None:
    """ViT-B/16 at 224 pixels: 35.12 GFLOPs; on the meta device, so that nothing is computed."""
    with torch.device("meta"):
        model = transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)
        pixels = torch.empty(1, 3, 224, 224)
    found = flops(lambda: model(pixels))
    assert found == vit_by_hand(224, 16, 768, 3072, 12)
    assert found / 1e9 == pytest.approx(35.12, abs=0.01)


def test_counting_knows_products_and_nothing_of_what_is_computed() -> None:
    x = torch.ones(3, 4)
    found = []
    assert flops(lambda: found.append((x + 1) @ torch.ones(4, 5))) == 2 * 3 * 4 * 5
    assert torch.equal(found[0], torch.full((3, 5), 8.0))


def test_every_merged_learner_costs_the_plain_backbone(tiny: Folder, tasks: list[Examples]) -> None:
    plain = vit_by_hand(8, 4, 16, 32, 2)
    learners: list[ClassLearner] = [
        FrozenBackbone(str(tiny("vit"))),
        SDLoRA(str(tiny("vit")), **SETTINGS),
        InfLoRA(str(tiny("vit")), **SETTINGS),
        SequentialLoRA(str(tiny("vit")), **SETTINGS),
        FullFineTuning(str(tiny("vit")), epochs=1, batch_size=8),
        SLCA(str(tiny("vit")), epochs=1, batch_size=8, alignment_draws=8),
        E2LoRA(str(tiny("vit")), epochs=1, batch_size=8, alignment_draws=8),
    ]
    for learner in learners:
        assert learner.info().get("cost") is None
        for number, task in enumerate(tasks[:2], 1):
            cost = learner.learn(task).info()["cost"]
            assert cost["passes"] == 1
            assert cost["gflops"] == (plain + 2 * 16 * 2 * number) / 1e9
    spread = RanPAC(str(tiny("vit")), projection_dim=30).learn(tasks[0]).info()["cost"]
    assert spread["gflops"] == (plain + 2 * 16 * 30 + 2 * 30 * 2) / 1e9
    fourier = KLDA(str(tiny("vit")), projection_dim=30).learn(tasks[0]).info()["cost"]
    assert fourier["gflops"] == (plain + 2 * 16 * 30 + 2 * 30 * 2) / 1e9
    for several in (EASE(str(tiny("vit")), **SETTINGS), CLLoRA(str(tiny("vit")), **SETTINGS)):
        cost = several.learn(tasks[0]).info()["cost"]
        assert cost["passes"] == 2
        assert cost["gflops"] == 2 * (plain + 2 * 16 * 2) / 1e9
    kernel = FrozenBackbone(str(tiny("vit")), head="kernel").learn(tasks[0]).info()["cost"]
    points = 2 * 2 * 8  # of two classes, on either side of the mean along eight directions
    assert kernel["gflops"] == (plain + 2 * 16 * points + 2 * points * 2) / 1e9


def test_what_is_trained_and_stored_is_counted(tiny: Folder, tasks: list[Examples]) -> None:
    memory = [sum(t.numel() for t in FrozenBackbone(str(tiny("vit"))).learn(tasks[0]).memory.needed_tensors())]
    memory += [sum(t.numel() for t in SDLoRA(str(tiny("vit")), **SETTINGS).learn(both(tasks)).memory.needed_tensors())]
    factors, rows = 4 * 2 * (16 + 16), 2 * 17
    learner = SDLoRA(str(tiny("vit")), **SETTINGS)
    for number, task in enumerate(tasks[:2], 1):
        cost = learner.learn(task).info()["cost"]
        assert cost["parameters"] == factors + number + rows  # its factors, all magnitudes, its own rows
        assert cost["stored"] == number * (factors + 1 + rows) + memory[number - 1]
    seen = SequentialLoRA(str(tiny("vit")), loss_classes="seen", **SETTINGS).learn(tasks[0]).learn(tasks[1])
    assert seen.info()["cost"]["parameters"] == factors + 2 * rows
    once = SequentialLoRA(str(tiny("vit")), adapted_tasks=1, **SETTINGS).learn(tasks[0]).learn(tasks[1])
    assert once.info()["cost"]["parameters"] == rows
    whole = FullFineTuning(str(tiny("vit")), epochs=1, batch_size=8).learn(tasks[0])
    encoder = sum(p.numel() for p in whole.backbone.model.parameters())
    assert whole.info()["cost"]["parameters"] == encoder + rows
    assert whole.info()["cost"]["stored"] == encoder + rows + memory[0]


def both(tasks: list[Examples]) -> Examples:
    return Examples([*tasks[0].inputs, *tasks[1].inputs], [*tasks[0].labels, *tasks[1].labels])


def test_a_task_of_known_classes_trains_nothing(tiny: Folder, tasks: list[Examples]) -> None:
    learner = SDLoRA(str(tiny("vit")), **SETTINGS).learn(tasks[0])
    with pytest.warns(DataWarning, match="count twice"):
        learner.learn(tasks[0])
    assert learner.info()["cost"]["parameters"] == 0


def test_the_cost_outlives_a_store_and_a_forgotten_class(tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    learner = SDLoRA(str(tiny("vit")), **SETTINGS).learn(tasks[0]).learn(tasks[1])
    cost = learner.info()["cost"]
    learner.forget(learner.classes[0]).save(tmp_path / "store")
    assert SDLoRA.load(tmp_path / "store").info()["cost"] == cost
    assert json.loads(json.dumps(learner.info()))["cost"] == cost


@pytest.mark.parametrize("kind", ["vit", "dinov2", "timm_wrapper"])
def test_fused_or_apart_the_count_is_that_of_the_products(kind: str, tiny: Folder, tasks: list[Examples]) -> None:
    backbone = Backbone(str(tiny(kind)))
    encoded = backbone.encode(tasks[0].inputs[:1])
    plain = flops(lambda: backbone(encoded))
    learner = SDLoRA(backbone, **SETTINGS).learn(tasks[0])
    assert learner.info()["cost"]["gflops"] == (plain + 2 * 16 * 2) / 1e9
