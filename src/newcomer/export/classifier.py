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

STOCK: Mapping[tuple[str, Pooling], str] = {
    ("vit", "cls"): "ViTForImageClassification",
    ("deit", "cls"): "DeiTForImageClassification",
    ("dinov2", "cls"): "Dinov2ForImageClassification",
    ("dinov2_with_registers", "cls"): "Dinov2WithRegistersForImageClassification",
    ("bert", "pooler"): "BertForSequenceClassification",
}
"""Classes of transformers that put a linear layer on what we pool and nothing between; DINOv2's reads more besides, as zeros."""

CERTAIN = 100.0
"""A logit whose sigmoid is 1."""


@torch.no_grad()
def classifier(learner: ClassLearner) -> PreTrainedModel:
    """A model with the logits of `learner.logits` in float32; its configuration holds the class names.

    With a single class the logit is the constant `CERTAIN`, because other libraries apply a sigmoid to it.
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
    name = STOCK.get((config.model_type, backbone.pooling))
    if name and points is None:
        config.update(info)
        model: PreTrainedModel = getattr(transformers, name)(config)
    else:
        interpolate = backbone.resized and not interpolated
        compared = 0 if points is None else len(points)
        model = PooledClassifier(PooledConfig(config.to_dict(), backbone.pooling, interpolate, compared, **info))
    existing: Any = model.classifier
    weights = {f"{model.base_model_prefix}.{key}": tensor for key, tensor in (merged(learner) | interpolated).items()}
    head = {
        "classifier.weight": F.pad(weight, (0, existing.in_features - weight.shape[1])),
        "classifier.bias": bias,
        **({} if points is None else {"points": points}),
    }
    model.load_state_dict(weights | head)
    model.train(False)
    return model


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
