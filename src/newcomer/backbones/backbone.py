"""Pre-trained backbone: encoder or decoder from the hub or a folder, with its own preprocessing."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from PIL.Image import Image, frombytes
from pydantic import Field
from torch import nn

from newcomer.backbones import preprocessing
from newcomer.backbones.conv1d import conv1d_to_linear
from newcomer.backbones.families import (
    Pooling,
    TimmImages,
    attention_and_mlp,
    family_of,
    linear_modules,
    poolings,
    query_value,
)
from newcomer.backbones.loading import is_image_model, load, read_sibling
from newcomer.backbones.padding import set_padding
from newcomer.backbones.sentence_transformers_config import Declared, declared, require_computable
from newcomer.backbones.sharding import Sharding
from newcomer.backbones.sources import resolve_source
from newcomer.data.examples import Input
from newcomer.data.io.image_decoding import to_rgb
from newcomer.errors import DataError, LearnerError, SettingError, nearest
from newcomer.settings import Json, checked
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.settings import Count

LONG = 512
"""Default maximum number of tokens."""

Encoded = Mapping[str, Tensor]


class Backbone(nn.Module):
    """A frozen encoder or decoder: images or texts in, one feature vector each out.

    - `name`: a folder with a transformers model, or its name on the hub. A folder of the same last name under `$NEWCOMER_DATA`
      or `data/` comes first, then an installed package that carries the model, then the hub.
    - `size`: side of the images in pixels; the backbone's own by default, otherwise positions are interpolated.
    - `pooling`: 'cls' takes the first token's last state, 'mean' the mean over all tokens but padding, 'pooler' what the model
      itself pools: CLIP's normed class token, SigLIP's attention over its tokens, BERT's layer on the first token; 'last' takes
      the state of the last token but padding, the only one of a decoder that has seen the whole text. By default 'pooler' for CLIP,
      SigLIP and timm, 'cls' for other images, and for texts what a folder of sentence-transformers says of its model, or 'last' for
      decoders and 'mean' for others.
    - `max_tokens`: longer texts are cut; by default at the limit that such a folder states, or its tokenizer and positions have.
    - `target_modules`: the linear modules to adapt, by name or by the end of their names; by default the query and value
      projections of every attention (`families`), also where a model holds them fused in one layer with the key.
    - `dtype`: of its weights and activations. 'bfloat16' takes half of the memory; so does 'float16', which only a frozen
      backbone may have. Features, heads and all that is trained are float32.

    Code that comes with a model is never run.
    Raises DataError where no model is found, a library that it needs is not installed, a text model comes without its
    tokenizer, or a model computes no states from a text alone; SettingError for what the backbone cannot give: a pooling, more
    `max_tokens` than it has positions for, a target module.
    """

    follows_folder: ClassVar[bool] = True
    """Whether pooling and maximum length default to those of a sentence-transformers configuration."""

    settings: dict[str, Any]
    mean: Tensor
    std: Tensor

    @checked
    def __init__(
        self,
        name: str | PathLike[str],
        *,
        size: Count | None = None,
        pooling: Pooling | None = None,
        max_tokens: Count | None = None,
        target_modules: Annotated[list[str], Field(min_length=1)] | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        super().__init__()
        name = fspath(name)
        self.name, self.size, self.resized = name, size, False
        source = resolve_source(name)
        self.dtype: torch.dtype = getattr(torch, dtype)
        config, model, self.encoder, lacking = load(name, source, self.dtype)
        self.folder = source.folder if source else None
        """The user's own folder, if it was loaded from one."""
        self.files = source.source if source and not source.published else None
        """Folder with its files, if the name is not that of a published model."""
        self.reads_images = is_image_model(model)
        try:
            family = family_of(config, model)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):  # each model fails in its own way
            raise DataError(
                f"backbone '{name}' computes no states from a text's tokens alone ({type(model).__name__}); give an encoder"
                " or a decoder of texts"
            ) from None
        possible = poolings(model, family)
        self.is_causal = "last" in possible
        """Whether it is a decoder, whose tokens see only those before them."""
        if self.is_causal:
            model.config.use_cache = False  # nothing is generated
        declaration = Declared()
        if not self.reads_images:
            self._require_words(getattr(config, "vocab_size", None))
            if source and self.follows_folder:
                declaration = declared(read_sibling(source), name, thorough=not source.on_hub)
                self._require_cases(declaration)
                if pooling is None:
                    require_computable(declaration, name, possible)
        if pooling and pooling not in possible:
            raise SettingError(
                f"Backbone: pooling = '{pooling}', which '{name}' has not; give one of: {', '.join(possible)}"
            )
        self.pooling = pooling or declaration.pooling or (possible[0] if self.follows_folder else _plain(possible))
        if self.pooling != "pooler":
            lacking = [key for key in lacking if "pooler" not in key]  # an unused pooler may lack weights
            if getattr(model, "pooler", None) is not None:
                model.pooler = None
        if lacking:  # transformers would initialize them at random
            raise DataError(f"backbone '{name}': its file lacks weights ({lacking[0]}); fetch the model again")
        self.model: nn.Module = model.requires_grad_(False).eval()
        self.fingerprint = _fingerprint(self.model)  # of the weights as loaded
        self.sharding: Sharding | None = None
        """Its passes, where its blocks are spread over several processes."""
        self.transposed = conv1d_to_linear(self.model)
        """Names of the layers whose weights lie transposed in its files (GPT-2)."""
        if config.model_type == "timm_wrapper":
            self.encoder, net = TimmImages(self.encoder), model.timm_model
            self.width: int = net.head_hidden_size if self.pooling == "pooler" else net.num_features
            if size and hasattr(net, "set_input_size"):
                net.set_input_size((size, size))  # interpolates its positions
        else:
            self.width = getattr(model.config, "hidden_size", 0)
            self.resized = bool(self.reads_images and size and size != getattr(model.config, "image_size", size))
        if not self.width:
            raise DataError(f"backbone '{name}' has no tokens of one width ({config.model_type}); give a transformer")
        known = min(declaration.max_tokens or LONG, getattr(self.encoder, "model_max_length", LONG))
        self.max_tokens = None if self.reads_images else _longest(max_tokens, known, self.model, self.is_causal)
        self.projections = _named(self.model, target_modules) if target_modules else query_value(self.model, family)
        """Names of the linear modules to adapt in `model`, in order of depth; empty for an unknown architecture."""
        self.block_projections = self.projections if target_modules else attention_and_mlp(self.model, self.projections)
        """Those that a method adapts which adapts more: by default the key projections and the first MLP layers as well."""
        self.preprocessing = (preprocessing.of_processor if self.reads_images else preprocessing.of_tokenizer)(
            self.encoder
        )
        """Description of its processor or tokenizer, for a store."""
        if self.reads_images:
            self.scale, mean, std = _normalisation(self.encoder)
            self.register_buffer("mean", mean, persistent=False)
            self.register_buffer("std", std, persistent=False)
            self._from_bytes = self._bytes_are_enough()
        else:
            set_padding(self.encoder, name, getattr(config, "vocab_size", None), self.is_causal)
            # truncation and padding are global state of a tokenizer: set once, before threads use it
            self.preprocess(["a", "b c"])
        self.eval()

    def identity(self) -> dict[str, Json]:
        """Everything its features depend on, and its location: for a store and `reloading.reload_backbone`."""
        return {
            "name": self.name,
            **({"folder": self.folder} if self.folder else {}),
            **self.settings,
            "pooling": self.pooling,
            "max_tokens": self.max_tokens,
            "fingerprint": self.fingerprint,
            "architecture": preprocessing.of_model(self.model.config),
            "preprocessing": self.preprocessing,
        }

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def sort_by_length(self, inputs: Sequence[Input], rows: Iterable[int]) -> list[int]:
        """These rows sorted by text length, so that batches have little padding; image rows unchanged."""

        def length(row: int) -> int:
            text = inputs[row]
            return len(text) if isinstance(text, str) else 0  # a wrong type is reported by `preprocess`

        return list(rows) if self.reads_images else sorted(rows, key=length)

    def encode(self, inputs: Sequence[Input]) -> Encoded:
        """Model inputs of these images or texts, by the backbone's own preprocessing, on its device.

        Raises LearnerError for a text where images are wanted, or the other way round.
        """
        return self.to_device(self.preprocess(inputs))

    def preprocess(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        """Preprocessed inputs on the CPU, compact, for caching; `to_device` completes them.

        Images: 'pixels', uint8 (batch, 3, height, width) after the processor's resizing and cropping, or 'pixel_values' if the
        processor rescales before it resizes (DINOv3). Texts: token ids.

        Raises LearnerError as `encode` does, DataError for a text without tokens that a decoder has no state of.
        """
        items = list(inputs)
        wanted = Image if self.reads_images else str
        for item in items:
            if not isinstance(item, wanted):
                kind = "images" if self.reads_images else "texts"
                raise LearnerError(f"backbone '{self.name}' reads {kind}, but was given a {type(item).__name__}")
        if not self.reads_images:
            return self._tokens(cast(list[str], items))
        images = [to_rgb(item) for item in cast(list[Image], items)]
        return {"pixels": self._bytes(images)} if self._from_bytes else self._processed(images)

    def to_device(self, preprocessed: Mapping[str, Tensor]) -> Encoded:
        """Output of `preprocess` on the backbone's device; image bytes are rescaled and normalized there."""
        moved = {key: _moved(tensor, self.device) for key, tensor in preprocessed.items()}
        if "pixels" not in moved:
            return moved
        return {"pixel_values": (moved["pixels"].float() * self.scale - self.mean) / self.std}

    def forward(self, encoded: Encoded, model: nn.Module | None = None) -> Float[Tensor, "batch width"]:
        """Pooled features by this backbone's model, or by `model`, such as a compiled one."""
        output = self.output(encoded, model)
        if self.pooling == "pooler":
            pooled: Tensor | None = getattr(output, "pooler_output", None)
            if pooled is None:
                raise SettingError(f"Backbone: pooling = 'pooler', which '{self.name}' has not; give 'cls' or 'mean'")
            return self._widened(pooled)
        states = self._widened(output.last_hidden_state)
        if self.pooling == "cls":
            return states[:, 0]
        if "attention_mask" not in encoded:
            return states[:, -1] if self.pooling == "last" else states.mean(1)
        if self.pooling == "last":
            return states[torch.arange(len(states), device=states.device), last_tokens(encoded["attention_mask"])]
        mask = encoded["attention_mask"].to(states)[:, :, None]
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)

    def output(self, encoded: Encoded, model: nn.Module | None = None) -> Any:
        """The output of this backbone's model, or of `model`, with the states of all tokens."""
        options = {"interpolate_pos_encoding": True} if self.resized else {}
        reads = {
            key: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for key, tensor in encoded.items()
        }
        model = self.model if model is None else model
        if self.sharding is not None and model is self.model:
            return self.sharding.run(**reads, **options)
        return model(**reads, **options)

    def _widened(self, states: Tensor) -> Tensor:
        """Float32 instead of a backbone's half precision: sums over many tokens and examples need its digits."""
        return states if self.dtype == torch.float32 else states.float()

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        encoded = dict(
            self.encoder(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        )
        if self.is_causal and not (found := encoded["attention_mask"].any(1)).all():
            raise DataError(
                f"backbone '{self.name}': its tokenizer finds no token in {texts[found.tolist().index(False)]!r}; leave it out"
            )
        return encoded

    def _require_words(self, words: int | None) -> None:
        if wrong := preprocessing.unknown_words(self.encoder, words):
            raise DataError(
                f"backbone '{self.name}': {wrong}; put its tokenizer's files beside its weights (tokenizer.json and"
                " tokenizer_config.json, or the vocabulary)"
            )

    def _require_cases(self, declaration: Declared) -> None:
        if declaration.lower_case and self.encoder("Aa").input_ids != self.encoder("aa").input_ids:
            raise DataError(
                f"backbone '{self.name}': its folder asks for texts in lower case (do_lower_case), which its tokenizer does not"
                " make of them; lower-case the texts and take that line out"
            )

    def _processed(self, images: list[Image], **steps: bool) -> dict[str, Tensor]:
        square = {"height": self.size, "width": self.size}
        sized = {"size": square, "crop_size": square} if self.size else {}
        return dict(self.encoder(images, return_tensors="pt", **sized, **steps))

    def _bytes(self, images: list[Image]) -> Tensor:
        return self._processed(images, do_rescale=False, do_normalize=False)["pixel_values"]

    def _bytes_are_enough(self) -> bool:
        """Whether the processor's output can be computed from uint8 images, tested on a noise image that must be resized."""
        noise = [frombytes("RGB", (53, 37), bytes(i * i % 251 for i in range(53 * 37 * 3)))]
        whole, pixels = self._processed(noise)["pixel_values"], self._bytes(noise)
        return pixels.dtype == torch.uint8 and torch.allclose(
            self.to_device({"pixels": pixels})["pixel_values"], whole.float(), rtol=0, atol=1e-5
        )


def _plain(possible: tuple[Pooling, ...]) -> Pooling:
    """The default of a store that names no pooling: decoders were pooled as encoders were."""
    return next(pooling for pooling in possible if pooling != "last")


def last_tokens(mask: Int[Tensor, "batch token"]) -> Int[Tensor, " batch"]:
    """Position of each text's last token but padding, which may be on either side.

    >>> last_tokens(torch.tensor([[1, 1, 0], [0, 1, 1]])).tolist()
    [1, 2]
    """
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device; an asynchronous copy to a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _normalisation(processor: Any) -> tuple[float, Tensor, Tensor]:
    """The processor's rescaling factor, and mean and standard deviation a channel."""
    scale = processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0
    normalised = getattr(processor, "do_normalize", False)
    mean, std = (processor.image_mean, processor.image_std) if normalised else (0.0, 1.0)
    return scale, torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)


def _named(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Linear modules whose names are, or end in, one of these names."""
    ends = {name.rpartition(".")[2] for name in linear_modules(model)}
    for target in targets:
        if not linear_modules(model, [target]):
            raise SettingError(
                f"Backbone: target_modules has '{target}', where no linear module's name ends;"
                f" {nearest(target.rpartition('.')[2], ends)}"
            )
    return linear_modules(model, targets)


def _longest(wanted: int | None, known: int, model: Any, causal: bool) -> int:
    """Maximum number of tokens: at most the model's positions (RoBERTa's begin after the padding index).

    A decoder's are those that it was trained for; beyond them some scale their rotations by the longest text of a batch.
    """
    names = ("position_embeddings", "wpe")
    tables = [p for n, p in model.named_modules() if n.endswith(names) and isinstance(p, nn.Embedding)]
    first = [0 if table.padding_idx is None else table.padding_idx + 1 for table in tables]
    limits = [table.num_embeddings - start for table, start in zip(tables, first, strict=True)]
    if causal:
        limits += _trained_lengths(model.config)
    positions = min(limits, default=wanted or LONG)
    if wanted and wanted > positions:
        raise SettingError(
            f"Backbone: max_tokens = {wanted}, but the backbone has positions for {positions}; give at most that"
        )
    return wanted or min(known, positions, LONG)


def _trained_lengths(config: Any) -> list[int]:
    rotations = getattr(config, "rope_parameters", None) or {}
    scaled = rotations.get("original_max_position_embeddings") if rotations.get("rope_type") == "longrope" else None
    return [length for length in (getattr(config, "max_position_embeddings", None), scaled) if length]


def _fingerprint(model: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of all weights, to detect another model of the same name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
