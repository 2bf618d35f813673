"""Merged weights of a learner's encoder, as a plain model's state dict."""

from typing import Any

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.nn.lora.decoupled_linear import AdaptedLinear
from newcomer.nn.lora.fused_linear import FusedLinear
from newcomer.shapes import Tensor


@torch.no_grad()
def merged(learner: ClassLearner) -> dict[str, Tensor]:
    """W0 + ΔW and all other weights, on the CPU, under the encoder's original parameter names.

    Raises LearnerError if a learner cannot be expressed as merged weights.
    """
    backbone = learner.backbone
    weights = backbone.model.state_dict() | learner.encoder_weights()
    # A frozen backbone has adapted layers, too, where another learner stands on it.
    for name in [name for name, layer in backbone.model.named_modules() if isinstance(layer, AdaptedLinear)]:
        for kind in _kinds(weights, f"{name}.frozen"):
            weights[f"{name}.{kind}"] = weights.pop(f"{name}.frozen.{kind}")
    for name in [name for name, layer in backbone.model.named_modules() if isinstance(layer, FusedLinear)]:
        for kind in _kinds(weights, f"{name}.value"):
            weights[f"{name}.{kind}"] = torch.cat([weights.pop(f"{name}.{part}.{kind}") for part in FusedLinear.PARTS])
    for name in backbone.transposed:
        weights[f"{name}.weight"] = weights[f"{name}.weight"].T.contiguous()
    return {name: tensor.detach().cpu() for name, tensor in weights.items()}


@torch.no_grad()
def positions(backbone: Backbone) -> dict[str, Tensor]:
    """Position embeddings, interpolated for images of `backbone.size`, by parameter name.

    Empty if the encoder does not interpolate, or in an unknown way.
    """
    model: Any = backbone.model
    embeddings: Any = getattr(model, "embeddings", None)
    size = backbone.size
    if not backbone.resized or not size or not hasattr(embeddings, "interpolate_pos_encoding"):
        return {}
    before, after = ((side // model.config.patch_size) ** 2 for side in (model.config.image_size, size))
    for name, table in embeddings.named_parameters(prefix="embeddings"):
        if name in ("embeddings.position_embeddings", "embeddings.position_embedding.weight"):
            tokens = table.shape[-2] - before + after
            like = table.new_empty(1, tokens, table.shape[-1])
            found = embeddings.interpolate_pos_encoding(like, size, size)
            return {name: found.reshape(*table.shape[:-2], tokens, -1).cpu()}
    return {}


def _kinds(weights: dict[str, Tensor], layer: str) -> list[str]:
    return [kind for kind in ("weight", "bias") if f"{layer}.{kind}" in weights]
