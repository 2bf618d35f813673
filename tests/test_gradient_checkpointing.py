"""Gradient checkpointing: the same training by every method, with less kept of each pass."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import nn

from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.cl_lora import CLLoRA
from newcomer.classes.methods.coda_prompt import CODAPrompt
from newcomer.classes.methods.dual_prompt import DualPrompt
from newcomer.classes.methods.e2_lora import E2LoRA
from newcomer.classes.methods.ease import EASE
from newcomer.classes.methods.full_fine_tuning import FullFineTuning
from newcomer.classes.methods.inf_lora import InfLoRA
from newcomer.classes.methods.l2p import L2P
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.examples import Examples
from newcomer.errors import SettingError
from newcomer.nn.gradient_checkpointing import blocks_of, checkpointed

Folder = Callable[[str], Path]
SLOW: list[Any] = [pytest.param(method, marks=pytest.mark.slow) for method in (E2LoRA, EASE, CLLoRA)]
METHODS: list[Any] = [SDLoRA, SequentialLoRA, InfLoRA, L2P, DualPrompt, CODAPrompt, FullFineTuning, *SLOW]
HOW: dict[str, Any] = {"epochs": 2, "batch_size": 8, "device": "cpu"}


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpointed_training_is_the_same(method: Any, tiny: Folder, tasks: list[Examples]) -> None:
    plain, other = (
        method(str(tiny("vit")), gradient_checkpointing=given, **HOW).learn(tasks[0]).learn(tasks[1])
        for given in (False, True)
    )
    torch.testing.assert_close(other.logits(tasks[0].inputs), plain.logits(tasks[0].inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2", "qwen3", "dinov2", "clip", "siglip"])
def test_other_encoders(kind: str, tiny: Folder, tasks: list[Examples], questions: list[Examples]) -> None:
    data = tasks if kind in ("dinov2", "clip", "siglip") else questions
    plain, other = (
        SDLoRA(str(tiny(kind)), rank=2, gradient_checkpointing=given, **HOW).learn(data[0]) for given in (False, True)
    )
    torch.testing.assert_close(other.logits(data[0].inputs), plain.logits(data[0].inputs), rtol=1e-5, atol=1e-5)


def test_only_the_inputs_of_blocks_are_kept() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 256, batch_first=True)
    model = nn.TransformerEncoder(layer, 8, enable_nested_tensor=False).eval()
    x = torch.randn(4, 16, 32, requires_grad=True)

    def kept(blocks: list[nn.Module]) -> tuple[int, torch.Tensor]:
        sizes: list[int] = []
        own = {p.data_ptr() for p in model.parameters()}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(0 if tensor.data_ptr() in own else tensor.numel())
            return tensor

        with checkpointed(blocks), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            y = model(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        return sum(sizes), gradient

    (plain, gradient), (fewer, same) = kept([]), kept(blocks_of(model))
    assert fewer < plain / 5
    torch.testing.assert_close(same, gradient)


def test_overrides_of_the_pass_are_there_again_in_a_backward_pass_of_another_thread(tiny: Folder) -> None:
    """As on a GPU, whose gradients are computed in a thread of torch's."""
    learner = SDLoRA(str(tiny("vit")), rank=2, **HOW)
    learner.lora.open(2, torch.Generator().manual_seed(0))
    for up in learner.lora.open_up:
        nn.init.normal_(up, std=0.1)
    pixels = {"pixel_values": torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))}

    def gradients(blocks: list[nn.Module]) -> list[torch.Tensor]:
        with checkpointed(blocks):
            loss = learner.adapter.encode(pixels).square().sum()
        found: list[torch.Tensor] = []
        worker = Thread(target=lambda: found.extend(torch.autograd.grad(loss, list(learner.lora.open_down))))
        worker.start()
        worker.join()
        return found

    plain, same = gradients([]), gradients(blocks_of(learner.backbone.model))
    assert len(plain) == len(same) > 0
    torch.testing.assert_close(same, plain)


def test_full_fine_tuning_on_a_backbone_that_another_method_checkpointed(tiny: Folder, tasks: list[Examples]) -> None:
    """Its copy of the blocks computes with its own weights."""
    shared = Backbone(str(tiny("vit")))
    SDLoRA(shared, rank=2, gradient_checkpointing=True, **HOW).learn(tasks[0])
    shown = [
        FullFineTuning(backbone, learning_rate=1e-3, **HOW).learn(tasks[0]).logits(tasks[0].inputs)
        for backbone in (shared, str(tiny("vit")))
    ]
    torch.testing.assert_close(*shown, rtol=1e-5, atol=1e-5)


def test_a_model_without_equal_blocks_is_refused(tiny: Folder) -> None:
    backbone = Backbone(str(tiny("vit")))
    backbone.model.set_submodule("layers", nn.ModuleList([backbone.model.get_submodule("layers.0")]))
    backbone.projections = backbone.projections[:2]
    with pytest.raises(SettingError, match="gradient_checkpointing"):
        SDLoRA(backbone, rank=2, gradient_checkpointing=True, **HOW)
