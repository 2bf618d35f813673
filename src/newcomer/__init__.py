"""Teach a trained model its newcomers: new classes (SD-LoRA) and new items (EmerG), without retraining and without forgetting."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newcomer.classes.methods.sd_lora import SDLoRA
    from newcomer.data.examples import Examples
    from newcomer.data.schema import Field, Schema
    from newcomer.items.methods.emerg import EmerG

_HOMES = {
    "EmerG": "newcomer.items.methods.emerg",
    "Examples": "newcomer.data.examples",
    "Field": "newcomer.data.schema",
    "SDLoRA": "newcomer.classes.methods.sd_lora",
    "Schema": "newcomer.data.schema",
}

__all__ = ["EmerG", "Examples", "Field", "SDLoRA", "Schema"]


def __getattr__(name: str) -> object:
    # Learners are imported when they are asked for: a report or a version needs no torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'newcomer' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
