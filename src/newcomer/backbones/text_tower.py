"""Embeddings of texts by the text tower that belongs to a backbone of images (CLIP, SigLIP)."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.loading import load_both_towers
from newcomer.backbones.sources import resolve_source
from newcomer.shapes import Float, Tensor


@torch.no_grad()
def text_embeddings(backbone: Backbone, texts: Sequence[str]) -> Float[Tensor, "text width"]:
    """Embeddings of texts in the space of the backbone's pooled features, by the text tower of the same model, on the CPU.

    They have unit length where images and texts meet. CLIP compares projections P f of pooled features f with them: P⁺t, the
    shortest vector with the projection t, is the embedding. SigLIP compares the features themselves.

    Raises DataError for a model without text tower, and if it cannot be loaded.
    """
    source = resolve_source(backbone.folder or backbone.name)
    assert source is not None  # it was loaded from there
    model, tokenizer = load_both_towers(backbone.name, source)
    tokens = tokenizer(
        list(texts),
        padding="max_length" if model.config.model_type == "siglip" else True,  # as SigLIP was trained
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )
    embedded = F.normalize(model.get_text_features(**tokens).pooler_output.float(), dim=1)
    projection = getattr(model, "visual_projection", None)
    return embedded if projection is None else embedded @ torch.linalg.pinv(projection.weight.float()).T
