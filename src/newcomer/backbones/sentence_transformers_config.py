"""Configuration of a sentence-transformers folder: pooling, maximum length, lower-casing."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newcomer.backbones.families import Pooling
from newcomer.errors import DataError, SettingError

POOLED: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
"""Supported poolings, by their names in such folders."""

FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Names in older folders."""

LENGTHS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Files with the maximum length."""

UNDONE = ("Normalize", "Dropout")
"""Ignored modules: heads use unnormalized features, and inference has no dropout."""


@dataclass(frozen=True)
class Declared:
    """Configuration of a folder; None for what is not set."""

    pooling: Pooling | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    """Whether texts are lower-cased before tokenization."""
    refused: str = ""
    """Unsupported module, if any."""


def declared(file: Callable[[str], str | None], name: str, thorough: bool = True) -> Declared:
    """Configuration of a folder; `file` returns the path of a file by its name, or None.

    Unless `thorough`, a folder without modules.json is not searched further: on the hub each file is a request.
    Raises DataError for a file that cannot be understood.
    """

    def read(path: str) -> Any:
        place = file(path)
        try:
            return None if place is None else json.loads(Path(place).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"backbone '{name}': {path} cannot be read ({error}); fetch the model again") from None

    listed = read("modules.json")
    if listed is None and not thorough:
        return Declared()
    modules = [part for part in listed or [] if isinstance(part, dict)]
    paths = {str(part.get("type", "")).rpartition(".")[2]: str(part.get("path", "")) for part in modules}
    mode = _mode(read(f"{paths.get('Pooling', '1_Pooling')}/config.json"))
    others = [kind for kind in paths if kind not in ("Transformer", "Pooling", *UNDONE)]
    sizes = next((found for path in LENGTHS if isinstance(found := read(path), dict)), {})
    length = sizes.get("max_seq_length")
    refused = f"a {others[0]} module ({paths[others[0]]})" if others else ""
    if mode and mode not in POOLED:
        refused = f"pooling by '{mode}'"
    return Declared(
        POOLED.get(mode or ""),
        length if isinstance(length, int) and length > 0 else None,
        bool(sizes.get("do_lower_case")),
        refused,
    )


def _mode(config: Any) -> str | None:
    """Pooling of a configuration, several joined by '+'; None if it has none."""
    if not isinstance(config, dict):
        return None
    given = config.get("pooling_mode")
    if given is None:
        given = [mode for flag, mode in FLAGS.items() if config.get(flag)]
    return "+".join(given if isinstance(given, list) else [str(given)]) or None


def require_computable(declaration: Declared, name: str, possible: tuple[Pooling, ...]) -> None:
    """Raises SettingError if the folder's own pooling is not supported and no other was given."""
    if declaration.refused or (declaration.pooling and declaration.pooling not in possible):
        what = declaration.refused or f"pooling by '{declaration.pooling}'"
        ways = " or ".join(f"'{pooling}'" for pooling in possible)
        raise SettingError(
            f"Backbone: '{name}' makes its features by {what}, which is not computed here; give pooling = {ways} to take its"
            " tokens' states without that"
        )
