"""Families of encoders and decoders: projections, poolings and loaders by transformers' `model_type`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from PIL.Image import Image
from torch import nn

from newcomer.nn.lora.fused_linear import FusedLinear
from newcomer.shapes import Tensor

Pooling = Literal["cls", "mean", "pooler", "last"]


@dataclass(frozen=True)
class Family:
    """Properties of the models of one `model_type`."""

    projections: tuple[str, ...]
    """Suffixes of the names of query and value projections."""
    poolings: tuple[Pooling, ...]
    """Available poolings, the default first."""
    loads: str = "AutoModel"
    """transformers class that loads the encoder; of a multi-tower model the right tower."""
    fused: str = ""
    """Attention class with a fused query-key-value projection, in this order, a third each."""


IMAGES = Family((), ("cls", "mean", "pooler"))
"""Unknown image encoders."""

TEXTS = Family((), ("mean", "cls", "pooler"))
"""Unknown text encoders."""

DECODERS = Family(("q_proj", "v_proj"), ("last", "mean"))
"""Decoders: a token's state depends on the tokens before it alone, so that the first one's says nothing of the text."""

FAMILIES: Mapping[str, Family] = {
    "vit": Family(("q_proj", "v_proj"), IMAGES.poolings),
    "deit": Family(("q_proj", "v_proj"), IMAGES.poolings),
    "dinov2": Family(("q_proj", "v_proj"), IMAGES.poolings),
    "dinov2_with_registers": Family(("q_proj", "v_proj"), IMAGES.poolings),
    "dinov3_vit": Family(("q_proj", "v_proj"), IMAGES.poolings),
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
    "gpt2": Family(("attn.c_attn",), DECODERS.poolings, fused="transformers.models.gpt2.modeling_gpt2.GPT2Attention"),
    "llama": DECODERS,
    "mistral": DECODERS,
    "qwen2": DECODERS,
    "qwen3": DECODERS,
    "gemma": DECODERS,
    "gemma2": DECODERS,
    "gemma3_text": DECODERS,
}

KEYS = ("k_proj", "key", "k_lin", "attn.k", "key_proj")
"""Suffixes of the names of key projections, in any family."""
FIRST_MLP_LAYERS = ("mlp.fc1", "mlp.up_proj", "intermediate.dense", "ffn.lin1", "mlp.Wi", "mlp.c_fc")
"""Suffixes of the names of the first layer of a block's MLP, in any family."""


def family_of(config: Any, model: Any) -> Family:
    """The family of this model; of one that is not in the table by what it reads, and whether it is a decoder.

    Whether a text model is a decoder is computed (`is_causal`), for some are made to read in both directions.
    """
    family = FAMILIES.get(config.model_type)
    if model.main_input_name == "pixel_values":
        return family or IMAGES
    if family is not None and "last" not in family.poolings:
        return family
    causal = is_causal(model)
    if family is None:
        return DECODERS if causal else TEXTS
    return family if causal else replace(family, poolings=TEXTS.poolings)


@torch.no_grad()
def is_causal(model: nn.Module) -> bool:
    """Whether the state of a text's first token is the same whatever follows it."""
    texts = torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6]], device=next(model.parameters()).device)
    states: Tensor = model(input_ids=texts).last_hidden_state[:, 0]
    error = 8 * torch.finfo(states.dtype).eps * states.abs().max()  # of rounding
    return bool((states[0] - states[1]).abs().max() <= error)


def poolings(model: Any, family: Family) -> tuple[Pooling, ...]:
    """Poolings of this model, the default first: the family's, without those that a timm model lacks."""
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
    """Names of the query and value projections of `model`, in order of depth; a fused one is split (`FusedLinear`).

    If the family's names are not found, those of all other families are tried. Empty if nothing is found.
    """
    if family.fused:
        whole = [name for name in linear_modules(model, family.projections) if _attention(model, name) == family.fused]
        for name in whole:
            model.set_submodule(name, FusedLinear(cast(nn.Linear, model.get_submodule(name))))
        return [f"{name}.{part}" for name in whole for part in ("query", "value")]
    pairs = dict.fromkeys([family.projections, *(other.projections for other in FAMILIES.values() if not other.fused)])
    return next(filter(None, (linear_modules(model, pair) for pair in pairs)), [])


def attention_and_mlp(model: nn.Module, query_value: Collection[str]) -> list[str]:
    """Names of the query, key and value projections and the first MLP layer of each block, in order of depth.

    `query_value`: names of the query and value projections. Of an architecture with other names there may be fewer.
    """
    attentions = {name.rpartition(".")[0] for name in query_value}
    blocks = {_block(name) for name in query_value}
    keys = [name for name in linear_modules(model, KEYS) if name.rpartition(".")[0] in attentions]
    first = [name for name in linear_modules(model, FIRST_MLP_LAYERS) if _block(name) in blocks]
    found = {*query_value, *keys, *first}
    return [name for name in linear_modules(model) if name in found]


def _block(name: str) -> str:
    """Part of a module's name up to its last number: the name of its block."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[-1] + 1]) if numbers else ""


def _attention(model: nn.Module, name: str) -> str:
    kind = type(model.get_submodule(name.rpartition(".")[0]))
    return f"{kind.__module__}.{kind.__qualname__}"


class TimmImages:
    """timm's preprocessing with the interface of transformers' image processors."""

    do_rescale = do_normalize = True
    rescale_factor = 1 / 255

    def __init__(self, processor: Any) -> None:
        self.config: dict[str, Any] = processor.data_config
        self.image_mean, self.image_std = self.config["mean"], self.config["std"]

    def __call__(
        self,
        images: Sequence[Image],
        *,
        size: Mapping[str, int] | None = None,
        do_normalize: bool = True,
        **_: object,
    ) -> dict[str, Tensor]:
        """'pixel_values' (image, channel, height, width): normalized, or as bytes."""
        from timm.data import create_transform  # type: ignore[import-not-found, unused-ignore]

        sides = {"input_size": (3, size["height"], size["width"])} if size else {}
        transform = create_transform(**(self.config | sides), normalize=do_normalize)
        return {"pixel_values": torch.stack([transform(image) for image in images])}
