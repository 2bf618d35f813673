"""Transformers model: classifier on pooled encoder states. Self-contained: the file is copied next to the weights."""

import math
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class PooledConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The encoder's configuration, with its `model_type`, and the pooling of its states into one vector.

    - `pooling`: 'cls': last state of the first token; 'mean': mean over all tokens but padding; 'last': last state of the last
      token but padding; 'pooler': the encoder's own pooler.
    - `interpolate`: whether position embeddings are interpolated to the image size.
    - `points`: number of support points of a kernel head; 0 for a linear one.
    """

    model_type = "pooled-classifier"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        pooling: str = "cls",
        interpolate: bool = False,
        points: int = 0,
        **others: Any,
    ) -> None:
        # the encoder is of the type that the whole is loaded in, not of the one it was saved in
        self.encoder = {key: value for key, value in (encoder or {}).items() if key not in ("dtype", "torch_dtype")}
        self.pooling, self.interpolate, self.points = pooling, interpolate, points
        super().__init__(**others)


class PooledClassifier(PreTrainedModel):  # type: ignore[no-untyped-call]
    """logits = W · pooled + b, for images or texts; or W · k(pooled, points) + b with the arc-cosine kernel k.

    Means and kernels are computed in float32 whatever the model's dtype: half precision has too few digits and too small a range.
    """

    config_class = PooledConfig
    base_model_prefix = "encoder"
    # a head is small and needs its digits
    _keep_in_fp32_modules = _keep_in_fp32_modules_strict = ["classifier", "points"]  # noqa: RUF012  # as the base class has it
    _supports_sdpa = _supports_flash_attn = _supports_attention_backend = True  # the encoder says what it can do

    def __init__(self, config: PooledConfig) -> None:
        super().__init__(config)
        self.encoder: Any = AutoModel.from_config(AutoConfig.for_model(**config.encoder))  # type: ignore[no-untyped-call]
        if config.pooling != "pooler" and getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        width = self.encoder.config.hidden_size
        if config.points:
            self.register_buffer("points", torch.zeros(config.points, width))
        self.classifier = nn.Linear(config.points or width, len(config.id2label or {}))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, attention_mask: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        if self.config.interpolate:
            inputs["interpolate_pos_encoding"] = True
        output = self.encoder(**inputs)
        found = self._pooled(output, attention_mask)
        if self.config.points:
            found = self._compared(found)
        return SequenceClassifierOutput(logits=self.classifier(found.to(self.classifier.weight.dtype)))

    def _compared(self, x: torch.Tensor) -> torch.Tensor:
        points: Any = self.points
        x, points = x.float(), points.float()
        size = (x.norm(dim=1)[:, None] * points.norm(dim=1)).clamp(min=1e-30)
        cosine = (x @ points.T / size).clamp(-1, 1)
        found: torch.Tensor = size * ((1 - cosine.square()).sqrt() + (math.pi - cosine.acos()) * cosine)
        return found / (2 * math.pi)

    def _pooled(self, output: Any, attention_mask: torch.Tensor | None) -> torch.Tensor:
        states: torch.Tensor = output.last_hidden_state
        if self.config.pooling == "pooler":
            pooled: torch.Tensor = output.pooler_output
            return pooled
        if self.config.pooling == "cls":
            return states[:, 0]
        if self.config.pooling == "last":
            if attention_mask is None:
                return states[:, -1]
            places = torch.arange(1, states.shape[1] + 1, device=states.device)
            rows = torch.arange(states.shape[0], device=states.device)  # an exporter takes len() for a constant
            return states[rows, (attention_mask * places).argmax(1)]
        states = states.float()
        if attention_mask is None:
            return states.mean(1)
        mask = attention_mask.to(states.dtype)[:, :, None]
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)
