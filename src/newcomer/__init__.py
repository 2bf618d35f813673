"""Add new classes (SD-LoRA) and new items (EmerG) to trained models, without retraining and without forgetting."""

from importlib import import_module
from typing import TYPE_CHECKING

from newcomer.extras import optional_imports

if TYPE_CHECKING:
    from newcomer.classes.methods.cl_lora import CLLoRA
    from newcomer.classes.methods.coda_prompt import CODAPrompt
    from newcomer.classes.methods.dual_prompt import DualPrompt
    from newcomer.classes.methods.e2_lora import E2LoRA
    from newcomer.classes.methods.ease import EASE
    from newcomer.classes.methods.frozen import FrozenBackbone
    from newcomer.classes.methods.full_fine_tuning import FullFineTuning
    from newcomer.classes.methods.inf_lora import InfLoRA
    from newcomer.classes.methods.klda import KLDA
    from newcomer.classes.methods.l2p import L2P
    from newcomer.classes.methods.ranpac import RanPAC
    from newcomer.classes.methods.sd_lora import SDLoRA
    from newcomer.classes.methods.sequential_lora import SequentialLoRA
    from newcomer.classes.methods.slca import SLCA
    from newcomer.client import AsyncClient, Client, ServiceError
    from newcomer.data.examples import Examples
    from newcomer.data.schema import Field, Schema
    from newcomer.errors import (
        DataError,
        DataWarning,
        LearnerError,
        MissingExtraError,
        NewcomerError,
        RecipeError,
        SettingError,
        StoreError,
        StreamError,
    )
    from newcomer.estimator import NewcomerClassifier
    from newcomer.items.methods.cvar import CVAR
    from newcomer.items.methods.dropout_net import DropoutNet
    from newcomer.items.methods.emerg import EmerG
    from newcomer.items.methods.id_tuning import IdTuning
    from newcomer.items.methods.logistic import Logistic
    from newcomer.items.methods.meta_embedding import MetaEmbedding
    from newcomer.items.methods.mwuf import MWUF
    from newcomer.items.serving.service import ItemService
    from newcomer.loading import load
    from newcomer.streams.class_incremental import ClassIncremental
    from newcomer.streams.cold_start import ColdStart
    from newcomer.streams.domain_incremental import DomainIncremental

_MODULES = {
    "AsyncClient": "client",
    "CLLoRA": "classes.methods.cl_lora",
    "CODAPrompt": "classes.methods.coda_prompt",
    "CVAR": "items.methods.cvar",
    "Client": "client",
    "ClassIncremental": "streams.class_incremental",
    "ColdStart": "streams.cold_start",
    "DataError": "errors",
    "DataWarning": "errors",
    "DomainIncremental": "streams.domain_incremental",
    "DropoutNet": "items.methods.dropout_net",
    "DualPrompt": "classes.methods.dual_prompt",
    "E2LoRA": "classes.methods.e2_lora",
    "EASE": "classes.methods.ease",
    "EmerG": "items.methods.emerg",
    "Examples": "data.examples",
    "Field": "data.schema",
    "FrozenBackbone": "classes.methods.frozen",
    "FullFineTuning": "classes.methods.full_fine_tuning",
    "IdTuning": "items.methods.id_tuning",
    "InfLoRA": "classes.methods.inf_lora",
    "KLDA": "classes.methods.klda",
    "L2P": "classes.methods.l2p",
    "LearnerError": "errors",
    "ItemService": "items.serving.service",
    "Logistic": "items.methods.logistic",
    "MWUF": "items.methods.mwuf",
    "MissingExtraError": "errors",
    "MetaEmbedding": "items.methods.meta_embedding",
    "NewcomerClassifier": "estimator",
    "NewcomerError": "errors",
    "RanPAC": "classes.methods.ranpac",
    "RecipeError": "errors",
    "SDLoRA": "classes.methods.sd_lora",
    "SLCA": "classes.methods.slca",
    "Schema": "data.schema",
    "SequentialLoRA": "classes.methods.sequential_lora",
    "ServiceError": "client",
    "SettingError": "errors",
    "StoreError": "errors",
    "StreamError": "errors",
    "load": "loading",
}

__all__ = [
    "CVAR",
    "EASE",
    "KLDA",
    "L2P",
    "MWUF",
    "SLCA",
    "AsyncClient",
    "CLLoRA",
    "CODAPrompt",
    "Client",
    "ClassIncremental",
    "ColdStart",
    "DataError",
    "DataWarning",
    "DomainIncremental",
    "DropoutNet",
    "DualPrompt",
    "E2LoRA",
    "EmerG",
    "Examples",
    "Field",
    "FrozenBackbone",
    "FullFineTuning",
    "IdTuning",
    "InfLoRA",
    "ItemService",
    "LearnerError",
    "Logistic",
    "MetaEmbedding",
    "MissingExtraError",
    "NewcomerClassifier",
    "NewcomerError",
    "RanPAC",
    "RecipeError",
    "SDLoRA",
    "Schema",
    "SequentialLoRA",
    "ServiceError",
    "SettingError",
    "StoreError",
    "StreamError",
    "load",
]


def __getattr__(name: str) -> object:
    # Imported on first use: a report or a version needs no torch.
    if name not in _MODULES:
        raise AttributeError(f"module 'newcomer' has no attribute '{name}'")
    with optional_imports():
        return getattr(import_module(f"newcomer.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
