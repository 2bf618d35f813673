"""Backbones in half precision: half of the memory, nearly the same answers, and float32 for all that is learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification

import newcomer
from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.cl_lora import CLLoRA
from newcomer.classes.methods.coda_prompt import CODAPrompt
from newcomer.classes.methods.dual_prompt import DualPrompt
from newcomer.classes.methods.e2_lora import E2LoRA
from newcomer.classes.methods.ease import EASE
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.full_fine_tuning import FullFineTuning
from newcomer.classes.methods.inf_lora import InfLoRA
from newcomer.classes.methods.l2p import L2P
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.examples import Examples
from newcomer.errors import SettingError
from newcomer.export import FORMS

Folder = Callable[[str], Path]
SLOW: list[Any] = [pytest.param(method, marks=pytest.mark.slow) for method in (E2LoRA, EASE, CLLoRA)]
METHODS: list[Any] = [SDLoRA, SequentialLoRA, InfLoRA, L2P, DualPrompt, CODAPrompt, RanPAC, *SLOW]
HOW: dict[str, Any] = {"epochs": 2, "batch_size": 8, "device": "cpu"}
HALF = ["bfloat16", "float16"]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kind", ["vit", "bert", "clip", "gpt2"])
def test_weights_take_half_and_features_are_nearly_the_same(
    dtype: Any, kind: str, tiny: Folder, tasks: list[Examples], questions: list[Examples]
) -> None:
    inputs = (tasks if kind in ("vit", "clip") else questions)[0].inputs
    full, half = Backbone(str(tiny(kind))), Backbone(str(tiny(kind)), dtype=dtype)

    def size(backbone: Backbone) -> int:
        return sum(p.numel() * p.element_size() for p in backbone.model.parameters())

    assert size(half) == size(full) / 2
    with torch.inference_mode():
        wanted, features = full(full.encode(inputs)), half(half.encode(inputs))
    assert features.dtype == torch.float32
    assert not torch.equal(features, wanted)
    torch.testing.assert_close(features, wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_in_float32_on_bfloat16_weights(
    method: Any, tiny: Folder, tasks: list[Examples], tmp_path: Path
) -> None:
    learner = method(Backbone(str(tiny("vit")), dtype="bfloat16"), **HOW).learn(tasks[0]).learn(tasks[1])
    tensors = {key: t for entry in learner.entries for key, t in {**entry.tensors, **dict(entry.state or {})}.items()}
    halves = [key for key, tensor in tensors.items() if tensor.dtype in (torch.bfloat16, torch.float16)]
    assert halves == []
    learner.save(tmp_path / "store")
    loaded = newcomer.load(tmp_path / "store")
    assert isinstance(loaded, ClassLearner)
    assert loaded.backbone.dtype == torch.bfloat16
    assert torch.equal(loaded.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))


def test_nearly_the_answers_of_float32(tiny: Folder, tasks: list[Examples]) -> None:
    half, full = (
        SDLoRA(Backbone(str(tiny("vit")), dtype=dtype), rank=2, head="gaussian", **HOW).learn(tasks[0])
        for dtype in ("bfloat16", "float32")
    )
    wanted = full.logits(tasks[0].inputs)
    torch.testing.assert_close(half.logits(tasks[0].inputs), wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))


def test_float16_serves_what_is_not_trained_alone(tiny: Folder, tasks: list[Examples]) -> None:
    backbone = Backbone(str(tiny("vit")), dtype="float16")
    assert FrozenBackbone(backbone).learn(tasks[0]).predict(tasks[0].inputs)
    with pytest.raises(SettingError, match="too small a range for gradients"):
        SDLoRA(backbone, rank=2, **HOW).learn(tasks[0])


@pytest.mark.parametrize(("dtype", "reason"), [("bfloat16", "too few digits"), ("float16", "too small a range")])
def test_full_fine_tuning_is_refused(dtype: Any, reason: str, tiny: Folder) -> None:
    with pytest.raises(SettingError, match=reason):
        FullFineTuning(Backbone(str(tiny("vit")), dtype=dtype), **HOW)


def test_an_export_is_in_float32_and_answers_nearly_the_same(
    tiny: Folder, tasks: list[Examples], tmp_path: Path
) -> None:
    learner = SDLoRA(Backbone(str(tiny("vit")), dtype="bfloat16"), rank=2, **HOW).learn(tasks[0])
    FORMS["transformers"](learner, tmp_path / "out")
    exported = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in exported.parameters()} == {torch.float32}
    with torch.inference_mode():
        logits = exported(**learner.backbone.encode(tasks[0].inputs)).logits
    wanted = learner.logits(tasks[0].inputs)
    torch.testing.assert_close(logits, wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))


def test_a_store_of_another_precision_is_another_model(tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    learner = FrozenBackbone(Backbone(str(tiny("vit")), dtype="bfloat16")).learn(tasks[0])
    learner.save(tmp_path / "store")
    with pytest.raises(newcomer.NewcomerError, match=r"dtype|fingerprint|another"):
        FrozenBackbone(str(tiny("vit"))).learn(tasks[0]).learn(tasks[1]).save(tmp_path / "store")
