"""A linear classifier on the pooled states of an encoder, for transformers: stands alone, and is copied beside its weights."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class PooledConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The encoder's own configuration, with its `model_type`, and how its states become one vector.

    - `pooling`: 'cls' takes the first token's last state, 'mean' the mean over all tokens but padding, 'pooler' what the encoder
      itself pools.
    - `interpolate`: pictures are of another size than the encoder's positions.
    """

    model_type = "pooled-classifier"

    def __init__(
        self, encoder: dict[str, Any] | None = None, pooling: str = "cls", interpolate: bool = False, **others: Any
    ) -> None:
        self.encoder, self.pooling, self.interpolate = encoder or {}, pooling, interpolate
        super().__init__(**others)


class PooledClassifier(PreTrainedModel):  # type: ignore[no-untyped-call]
    """logits = W · pooled + b, for pictures or texts."""

    config_class = PooledConfig
    base_model_prefix = "encoder"
    _supports_sdpa = _supports_flash_attn = _supports_attention_backend = True  # the encoder says what it can do

    def __init__(self, config: PooledConfig) -> None:
        super().__init__(config)
        self.encoder: Any = AutoModel.from_config(AutoConfig.for_model(**config.encoder))  # type: ignore[no-untyped-call]
        if config.pooling != "pooler" and getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        self.classifier = nn.Linear(self.encoder.config.hidden_size, len(config.id2label or {}))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, attention_mask: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        if self.config.interpolate:
            inputs["interpolate_pos_encoding"] = True
        output = self.encoder(**inputs)
        return SequenceClassifierOutput(logits=self.classifier(self._pooled(output, attention_mask)))

    def _pooled(self, output: Any, attention_mask: torch.Tensor | None) -> torch.Tensor:
        states: torch.Tensor = output.last_hidden_state
        if self.config.pooling == "pooler":
            pooled: torch.Tensor = output.pooler_output
            return pooled
        if self.config.pooling == "cls":
            return states[:, 0]
        if attention_mask is None:
            return states.mean(1)
        mask = attention_mask.to(states.dtype)[:, :, None]
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)
