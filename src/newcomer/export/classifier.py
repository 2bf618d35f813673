"""A learner as a transformers model: an existing classification class where it computes the same, else `PooledClassifier`."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedModel

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.families import Pooling, TimmImages
from newcomer.classes.learner import ClassLearner
from newcomer.errors import LearnerError
from newcomer.export.merged import merged, positions
from newcomer.export.modeling_pooled import PooledClassifier, PooledConfig
from newcomer.shapes import Float, Tensor

STOCK: Mapping[tuple[str, Pooling], str] = {
    ("vit", "cls"): "ViTForImageClassification",
    ("deit", "cls"): "DeiTForImageClassification",
    ("dinov2", "cls"): "Dinov2ForImageClassification",
    ("dinov2_with_registers", "cls"): "Dinov2WithRegistersForImageClassification",
    ("bert", "pooler"): "BertForSequenceClassification",
    ("gpt2", "last"): "GPT2ForSequenceClassification",
    ("llama", "last"): "LlamaForSequenceClassification",
    ("mistral", "last"): "MistralForSequenceClassification",
    ("qwen2", "last"): "Qwen2ForSequenceClassification",
    ("qwen3", "last"): "Qwen3ForSequenceClassification",
    ("gemma", "last"): "GemmaForSequenceClassification",
    ("gemma2", "last"): "Gemma2ForSequenceClassification",
    ("gemma3_text", "last"): "Gemma3TextForSequenceClassification",
}
"""Classes of transformers that put a linear layer on what we pool and nothing between; DINOv2's reads more besides, as zeros, and
those of decoders have no bias: see `_in_final_norm`."""

FINAL_BIAS: Mapping[str, str] = {"gpt2": "ln_f.bias"}
"""Bias of the last layer norm, in decoders whose norm has one."""

BIAS_ERROR = 1e-5
"""Largest error of a bias, relative to the largest bias, that is moved into the last layer norm."""

CERTAIN = 100.0
"""A logit whose sigmoid is 1."""


@torch.no_grad()
def classifier(learner: ClassLearner) -> PreTrainedModel:
    """A model with the logits of `learner.logits` in float32; its configuration holds the class names.

    With a single class the logit is the constant `CERTAIN`, because other libraries apply a sigmoid to it. A bias in a decoder's
    last layer norm may add one number to all logits, which changes no probability.
    Raises LearnerError if nothing was learned yet, and for timm encoders.
    """
    (weight, bias), points = learner.linear_classifier(), learner.support_points
    backbone = learner.backbone
    if isinstance(backbone.encoder, TimmImages):
        raise LearnerError(f"backbone '{backbone.name}' is timm's, which only goes to peft; export with --to peft")
    interpolated = positions(backbone)
    config: Any = copy.deepcopy(backbone.model.config)
    if interpolated:
        config.image_size = backbone.size
    info = named(learner)
    if len(learner.classes) == 1:
        weight, bias = torch.zeros_like(weight), torch.full_like(bias, CERTAIN)
    weights = merged(learner) | interpolated
    name = None if points is not None else STOCK.get((config.model_type, backbone.pooling))
    if name and backbone.pooling == "last":
        config.pad_token_id = backbone.encoder.pad_token_id
        moved = _in_final_norm(weight, bias, weights, FINAL_BIAS.get(config.model_type))
        name = name if moved is not None and not _ends_in_padding(backbone) else None
        weights = weights if name is None else weights | (moved or {})
    if name:
        config.update(info)
        model: PreTrainedModel = getattr(transformers, name)(config)
    else:
        interpolate = backbone.resized and not interpolated
        compared = 0 if points is None else len(points)
        model = PooledClassifier(PooledConfig(config.to_dict(), backbone.pooling, interpolate, compared, **info))
    key = "score" if hasattr(model, "score") else "classifier"
    existing: Any = model.get_submodule(key)
    weights = {f"{model.base_model_prefix}.{name}": tensor for name, tensor in weights.items()}
    head = {
        f"{key}.weight": F.pad(weight, (0, existing.in_features - weight.shape[1])),
        **({} if existing.bias is None else {f"{key}.bias": bias}),
        **({} if points is None else {"points": points}),
    }
    model.load_state_dict(weights | head)
    model.train(False)
    return model


def _in_final_norm(
    weight: Float[Tensor, "class width"],
    bias: Float[Tensor, " class"],
    weights: Mapping[str, Tensor],
    name: str | None,
) -> dict[str, Tensor] | None:
    """What of `weights` changes so that x Wᵀ has the bias b without a layer for it, but for one number t added to all logits.

    A last layer norm with a bias β (`name`) gets β + δ with W δ = b + t: then W (x + δ) = W x + b + t. Without a bias nothing
    changes. None where the norm has no bias, or W no such δ, or a single class no other logit to compare its own with.
    """
    if not bias.any():
        return {}
    if name is None or len(bias) == 1:
        return None
    system = torch.cat([weight, -torch.ones_like(bias)[:, None]], dim=1).double()
    found = torch.linalg.lstsq(system, bias.double()[:, None], driver="gelsd").solution
    error = (system @ found - bias[:, None]).abs().max()  # one of rounding, where W has the rank of its classes
    return {name: weights[name] + found[:-1, 0].float()} if error <= BIAS_ERROR * bias.abs().max() else None


def _ends_in_padding(backbone: Backbone) -> bool:
    """Whether the tokenizer ends every text in what it pads by, where classes of transformers read the token before."""
    return bool(backbone.encoder("a").input_ids[-1] == backbone.encoder.pad_token_id)


def named(learner: ClassLearner) -> dict[str, Any]:
    """Class names as entries of a transformers configuration."""
    names = dict(enumerate(learner.classes))
    kind = {"problem_type": "single_label_classification"} if len(names) > 1 else {}  # one class is no problem it knows
    return {"id2label": names, "label2id": {name: i for i, name in names.items()}, **kind}


def plain_config(learner: ClassLearner, model: PreTrainedModel) -> Any:
    """The encoder's configuration with the class names, for readers of an ONNX graph."""
    config: Any = copy.deepcopy(model.config)
    if isinstance(model, PooledClassifier):
        config = AutoConfig.for_model(**model.config.encoder)
        config.update(named(learner))
    config.architectures = [
        STOCK.get((config.model_type, learner.backbone.pooling), type(learner.backbone.model).__name__)
    ]
    return config


def write_preprocessing(backbone: Backbone, folder: Path) -> None:
    """The backbone's image processor or tokenizer, configured for the preprocessing that `Backbone` does."""
    encoder = copy.deepcopy(backbone.encoder)
    if not backbone.reads_images:
        encoder.model_max_length = backbone.max_tokens
    elif backbone.size:
        square = {"height": backbone.size, "width": backbone.size}
        encoder = type(encoder).from_dict(encoder.to_dict() | {"size": square, "crop_size": square})
    encoder.save_pretrained(folder)
