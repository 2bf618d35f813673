"""What is particular to each family of encoders: one table, by transformers' `model_type`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from PIL.Image import Image
from torch import nn

from newcomer.nn.lora.fused_linear import FusedLinear
from newcomer.shapes import Tensor

Pooling = Literal["cls", "mean", "pooler"]


@dataclass(frozen=True)
class Family:
    """How the encoders of one `model_type` are read, pooled and adapted."""

    projections: tuple[str, ...]
    """How the names of the query and value projections end."""
    poolings: tuple[Pooling, ...]
    """What the model can give for a feature, its default first."""
    loads: str = "AutoModel"
    """The class of transformers that reads the encoder, and of a model of several towers the right one."""
    fused: str = ""
    """The attention whose only projection is known to hold query, key and value in this order, a third each."""


PICTURES = Family((), ("cls", "mean", "pooler"))
"""Encoders of pictures that the table does not know."""

TEXTS = Family((), ("mean", "cls", "pooler"))
"""Encoders of texts that the table does not know."""

FAMILIES: Mapping[str, Family] = {
    "vit": Family(("q_proj", "v_proj"), PICTURES.poolings),
    "deit": Family(("q_proj", "v_proj"), PICTURES.poolings),
    "dinov2": Family(("q_proj", "v_proj"), PICTURES.poolings),
    "dinov2_with_registers": Family(("q_proj", "v_proj"), PICTURES.poolings),
    "dinov3_vit": Family(("q_proj", "v_proj"), PICTURES.poolings),
    "clip": Family(("q_proj", "v_proj"), ("pooler", "cls", "mean"), "CLIPVisionModel"),
    "clip_vision_model": Family(("q_proj", "v_proj"), ("pooler", "cls", "mean"), "CLIPVisionModel"),
    "siglip": Family(("q_proj", "v_proj"), ("pooler", "mean"), "SiglipVisionModel"),
    "siglip_vision_model": Family(("q_proj", "v_proj"), ("pooler", "mean"), "SiglipVisionModel"),
    "timm_wrapper": Family(("attn.qkv",), ("pooler", "cls", "mean"), fused="timm.layers.attention.Attention"),
    "bert": Family(("query", "value"), TEXTS.poolings),
    "roberta": Family(("query", "value"), TEXTS.poolings),
    "xlm-roberta": Family(("query", "value"), TEXTS.poolings),
    "distilbert": Family(("q_lin", "v_lin"), ("mean", "cls")),
    "electra": Family(("query", "value"), ("mean", "cls")),
    "mpnet": Family(("attn.q", "attn.v"), TEXTS.poolings),
    "deberta-v2": Family(("query_proj", "value_proj"), ("mean", "cls")),
    "modernbert": Family(
        ("attn.Wqkv",), ("mean", "cls"), fused="transformers.models.modernbert.modeling_modernbert.ModernBertAttention"
    ),
}


def poolings(model: Any, family: Family) -> tuple[Pooling, ...]:
    """What this model can give for a feature, its default first: the family's, but of timm's nets many have no (class) token."""
    if (net := getattr(model, "timm_model", None)) is None:
        return family.poolings
    lacks = {"cls": getattr(net, "cls_token", None) is None, "mean": not hasattr(net, "num_prefix_tokens")}
    return tuple(pooling for pooling in family.poolings if not lacks.get(pooling))


def linear_modules(model: nn.Module, ends: Collection[str] | None = None) -> list[str]:
    """Names of the linear modules of `model`, in order of depth: all, or those that are or end in one of these dotted names."""
    # torch's own attention reads the weight of its output layer, a subclass, past forward
    names = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    return [name for name in names if ends is None or any(f".{name}".endswith(f".{end}") for end in ends)]


def query_value(model: nn.Module, family: Family) -> list[str]:
    """Names of the query and value projections of `model`, in order of depth; a fused one is taken apart (`FusedLinear`).

    Where the family's names are not found, or there are none, those of all other families are tried. Empty where nothing is found.
    """
    if family.fused:
        whole = [name for name in linear_modules(model, family.projections) if _attention(model, name) == family.fused]
        for name in whole:
            model.set_submodule(name, FusedLinear(cast(nn.Linear, model.get_submodule(name))))
        return [f"{name}.{part}" for name in whole for part in ("query", "value")]
    pairs = dict.fromkeys([family.projections, *(other.projections for other in FAMILIES.values() if not other.fused)])
    return next(filter(None, (linear_modules(model, pair) for pair in pairs)), [])


def _attention(model: nn.Module, name: str) -> str:
    kind = type(model.get_submodule(name.rpartition(".")[0]))
    return f"{kind.__module__}.{kind.__qualname__}"


class TimmPictures:
    """timm's own preprocessing, to be called as transformers' processors are."""

    do_rescale = do_normalize = True
    rescale_factor = 1 / 255

    def __init__(self, processor: Any) -> None:
        self.config: dict[str, Any] = processor.data_config
        self.image_mean, self.image_std = self.config["mean"], self.config["std"]

    def __call__(
        self,
        pictures: Sequence[Image],
        *,
        size: Mapping[str, int] | None = None,
        do_normalize: bool = True,
        **_: object,
    ) -> dict[str, Tensor]:
        """'pixel_values' (picture, channel, height, width): normalised, or as bytes."""
        from timm.data import create_transform  # type: ignore[import-not-found, unused-ignore]

        sides = {"input_size": (3, size["height"], size["width"])} if size else {}
        transform = create_transform(**(self.config | sides), normalize=do_normalize)
        return {"pixel_values": torch.stack([transform(picture) for picture in pictures])}
