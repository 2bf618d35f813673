"""Loading models of transformers and timm, silently and without remote code."""

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from newcomer.backbones.families import FAMILIES
from newcomer.backbones.sources import PACKAGED, Source, hub_is_reachable
from newcomer.errors import DataError

EXTRAS = {"timm": "'newcomer[timm]'", "torchvision": "torchvision"}
"""Optional packages of some backbones, and what to install; timm first, because it brings torchvision."""


def load(name: str, origin: Source | None, dtype: torch.dtype) -> tuple[Any, Any, Any, list[str]]:
    """Configuration, model, tokenizer or image processor, and names of missing weights.

    Raises DataError if nothing is found, if a package is missing, and for a model with remote code.
    """
    if origin is None:
        raise DataError(f"backbone '{name}' cannot be loaded (no such folder); {_what_to_give(name)}")
    source, options = origin.source, _options(origin)
    with silence_libraries(), _named_errors(name, options):
        config = AutoConfig.from_pretrained(source, **options)
        if getattr(config, "is_encoder_decoder", False):
            raise DataError(
                f"backbone '{name}' has an encoder and a decoder ({config.model_type}); give a model of one of them"
            )
        known = FAMILIES.get(config.model_type)
        reader = getattr(transformers, known.loads if known else "AutoModel")
        model, found = reader.from_pretrained(source, dtype=dtype, output_loading_info=True, **_of(reader, options))
        encoder = (AutoImageProcessor if is_image_model(model) else AutoTokenizer).from_pretrained(source, **options)
    return config, model, encoder, sorted(found["missing_keys"])


def load_both_towers(name: str, origin: Source) -> tuple[Any, Any]:
    """The whole model that a backbone of images is the vision tower of, in float32, and the tokenizer of its texts.

    Raises DataError if a part is missing.
    """
    options = _options(origin)
    with silence_libraries(), _named_errors(name, options):
        if not hasattr(AutoConfig.from_pretrained(origin.source, **options), "text_config"):
            raise DataError(
                f"backbone '{name}' has no text tower to read the names of classes; give the whole model of CLIP or "
                "SigLIP, or examples of the class"
            )
        model, found = AutoModel.from_pretrained(
            origin.source, dtype=torch.float32, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(origin.source, **options)
    if missing := sorted(found["missing_keys"]):
        raise DataError(f"backbone '{name}': its file lacks weights ({missing[0]}); fetch the model again")
    return model.eval(), tokenizer


def read_sibling(origin: Source) -> Callable[[str], str | None]:
    """A function that returns the path of another file of the model, or None."""
    reachable = origin.on_hub and hub_is_reachable()

    def file(path: str) -> str | None:
        if origin.on_hub:
            found: str | None = cached_file(
                origin.source,
                path,
                local_files_only=not reachable,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            return found
        local = Path(origin.source) / path
        return str(local) if local.is_file() else None

    return file


def is_image_model(model: Any) -> bool:
    """Whether this model reads images."""
    return bool(model.main_input_name == "pixel_values")


def _options(origin: Source) -> dict[str, bool]:
    """Options of transformers' loaders."""
    is_local = origin.on_hub and not hub_is_reachable()
    return {"trust_remote_code": False, **({"local_files_only": True} if is_local else {})}


@contextmanager
def _named_errors(name: str, options: Mapping[str, bool]) -> Iterator[None]:
    """Within, what a loader of transformers raises becomes a DataError that names the backbone."""
    try:
        yield
    except ImportError as error:
        needed = next((library for library in EXTRAS if library in str(error).lower()), None)
        if needed is None:
            raise
        raise DataError(f"backbone '{name}' needs {needed}; run: pip install {EXTRAS[needed]}") from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reachable = "local_files_only" not in options
        raise DataError(f"backbone '{name}' cannot be loaded {_reason(error, reachable, name)}") from None


def _of(reader: Any, options: dict[str, bool]) -> dict[str, bool]:
    """Options without `trust_remote_code` for explicit model classes, which do not accept it."""
    return (
        options if reader is transformers.AutoModel else {k: v for k, v in options.items() if k != "trust_remote_code"}
    )


def _reason(error: Exception, reachable: bool, name: str) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "trust_remote_code" in str(error):
        text = "it needs code of its own, by `auto_map` in its configuration, which is not run"
        return f"({text}); give a model that transformers knows"
    if not reachable:
        text = "the hub cannot be reached, and earlier downloads do not hold it"
    return f"({text}); {_what_to_give(name)}"


def _what_to_give(name: str) -> str:
    close = difflib.get_close_matches(name, PACKAGED, 1, 0.8)
    return f"{f'did you mean {close[0]!r}? or ' if close else ''}give a model folder or a name on the hub"


class silence_libraries:  # noqa: N801  # a context manager, named as a function
    """Within, transformers shows no progress bars and no loading report."""

    def __enter__(self) -> None:
        self.level = transformers_logging.get_verbosity()
        self.bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(logging.ERROR)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self.level)
        if self.bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
