"""Reading other libraries' models: quietly, and without running code that comes with them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from newcomer.backbones.families import FAMILIES
from newcomer.backbones.places import Place, hub_is_reachable
from newcomer.errors import DataError

EXTRAS = {"timm": "'newcomer[timm]'", "torchvision": "torchvision"}
"""What some backbones need besides, and what to install for it; timm comes first, for it brings torchvision."""


def load(name: str, place: Place | None) -> tuple[Any, Any, Any, list[str]]:
    """Configuration, model, tokenizer or image processor, and the weights that the model's file lacks.

    Raises DataError where there is nothing, where a library is missing, and for a model that needs code of its own.
    """
    if place is None:
        raise DataError(
            f"backbone '{name}' cannot be loaded (no such folder); give a model folder or a name on the hub"
        )
    source, options = place.source, {"trust_remote_code": False}
    reachable = not place.on_hub or hub_is_reachable()
    if not reachable:
        options["local_files_only"] = True
    with quiet():
        try:
            config = AutoConfig.from_pretrained(source, **options)
            known = FAMILIES.get(config.model_type)
            reader = getattr(transformers, known.loads if known else "AutoModel")
            model, found = reader.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True, **_of(reader, options)
            )
            encoder = (AutoImageProcessor if sees(model) else AutoTokenizer).from_pretrained(source, **options)
        except ImportError as error:
            needed = next((library for library in EXTRAS if library in str(error).lower()), None)
            if needed is None:
                raise
            raise DataError(f"backbone '{name}' needs {needed}; run: pip install {EXTRAS[needed]}") from None
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise DataError(f"backbone '{name}' cannot be loaded {_reason(error, reachable)}") from None
    return config, model, encoder, sorted(found["missing_keys"])


def beside(place: Place) -> Callable[[str], str | None]:
    """What gives the place of a file that lies beside the model's, or None where there is no such file."""
    reachable = place.on_hub and hub_is_reachable()

    def file(path: str) -> str | None:
        if place.on_hub:
            found: str | None = cached_file(
                place.source,
                path,
                local_files_only=not reachable,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            return found
        local = Path(place.source) / path
        return str(local) if local.is_file() else None

    return file


def sees(model: Any) -> bool:
    """Whether it is pictures that this model is given."""
    return bool(model.main_input_name == "pixel_values")


def _of(reader: Any, options: dict[str, bool]) -> dict[str, bool]:
    """Models that are named outright bring no code, and take no word about it."""
    return (
        options if reader is transformers.AutoModel else {k: v for k, v in options.items() if k != "trust_remote_code"}
    )


def _reason(error: Exception, reachable: bool) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "trust_remote_code" in str(error):
        text = "it needs code of its own, by `auto_map` in its configuration, which is not run"
        return f"({text}); give a model that transformers knows"
    if not reachable:
        text = "the hub cannot be reached, and earlier downloads do not hold it"
    return f"({text}); give a model folder or a name on the hub"


class quiet:  # noqa: N801  # reads as a mode: with quiet(): …
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
