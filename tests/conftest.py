"""What tests share: shapes checked at run time, and real data where there is some."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of transformers: no test needs the network
torch.set_num_threads(1)  # the tests run side by side

with install_import_hook(["newcomer.nn", "newcomer.metrics"], "beartype.beartype"):
    import newcomer.nn

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set or backbone, from `$NEWCOMER_DATA`, `data/`, or unpacked from ../shared; skips where there is none."""

    def find(name: str) -> Path:
        named = os.environ.get("NEWCOMER_DATA")
        for folder in [*([Path(named)] if named else []), ROOT / "data", SHARED / "data"]:
            if name in _ready(folder):
                return folder / name
        unpack = SHARED / "tools" / "unpack.py"
        if unpack.exists() and name in {"cifar100", "banking77", "ml-1m", "ml-latest-small"}:
            cache = ROOT / "build" / "data"
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / ".lock"):
                subprocess.run([sys.executable, str(unpack), str(cache), name], check=True, capture_output=True)
            return cache / name
        pytest.skip(f"real data '{name}' is not here: set NEWCOMER_DATA to a folder that has it")

    return find


def _ready(folder: Path) -> set[str]:
    """What a folder holds in the layout its users know."""
    layouts = {
        "cifar100": "train",
        "banking77": "train.csv",
        "ml-1m": "ratings.dat",
        "ml-latest-small": "ratings.csv",
        "vit-tiny-patch16-224": "config.json",
    }
    return {name for name, part in layouts.items() if (folder / name / part).exists()}
