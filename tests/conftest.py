"""What tests share: shapes checked at run time, tiny encoders, small lessons, and real data where there is some."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from jaxtyping import install_import_hook

from newcomer.data.digits import digits
from newcomer.data.examples import Examples

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of transformers: no test needs the network
torch.set_num_threads(1)  # the tests run side by side

install_import_hook(["newcomer.nn", "newcomer.metrics"], "beartype.beartype")  # from here on, in whatever imports them

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set or backbone, from `$NEWCOMER_DATA`, `data/` or ../shared; skips where there is none."""

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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny encoder of this kind with weights drawn at random, and with the preprocessing that belongs to it."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what transformers deprecates of itself while it writes
                _write_encoder(kind, made[kind])
        return made[kind]

    return folder


SENTENCE = "lost stolen my card is was where the rate exchange of euro pound top up failed refund please a in"


def _write_encoder(kind: str, folder: Path) -> None:
    import tokenizers
    import transformers as hf

    hf.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    words = SENTENCE.split()
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    text = size | {"vocab_size": len(words) + 4, "max_position_embeddings": 24, "pad_token_id": 0}
    square = {"height": 8, "width": 8}
    torch.manual_seed(0)
    if kind in ("vit", "deit", "dinov2"):
        picture = size | {"image_size": 8, "patch_size": 4, "mlp_ratio": 2}
        parts: dict[str, Any] = {
            "vit": (hf.ViTConfig, hf.ViTModel, hf.ViTImageProcessorPil(size=square)),
            "deit": (hf.DeiTConfig, hf.DeiTModel, hf.DeiTImageProcessorPil(size=square, crop_size=square)),
            "dinov2": (
                hf.Dinov2Config,
                hf.Dinov2Model,
                hf.BitImageProcessorPil(size={"shortest_edge": 10}, crop_size=square),
            ),
        }
        config, model, processor = parts[kind]
        model(config(**picture)).save_pretrained(folder)
        processor.save_pretrained(folder)
        return
    sizes = {
        "bert": (hf.BertConfig, hf.BertModel, text),
        "roberta": (hf.RobertaConfig, hf.RobertaModel, text | {"pad_token_id": 1}),
        "distilbert": (
            hf.DistilBertConfig,
            hf.DistilBertModel,
            text | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        ),
        "gpt2": (hf.GPT2Config, hf.GPT2Model, {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": len(words) + 4}),
    }
    config, model, settings = sizes[kind]
    model(config(**settings)).save_pretrained(folder)
    pads = ["<s>", "[PAD]"] if kind == "roberta" else ["[PAD]", "<s>"]
    vocabulary = {word: i for i, word in enumerate([*pads, "</s>", "[UNK]", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(mark, vocabulary[mark]) for mark in ("<s>", "</s>")]
    )
    hf.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def tasks() -> list[Examples]:
    """Three lessons of two digits each, six pictures a digit."""
    train, _ = digits()
    pairs = (("0", "1"), ("2", "3"), ("4", "5"))
    places = {
        digit: [i for i, label in enumerate(train.labels) if label == digit][:6] for pair in pairs for digit in pair
    }
    return [train.at([i for digit in pair for i in places[digit]]) for pair in pairs]


@pytest.fixture(scope="session")
def questions() -> list[Examples]:
    """Two lessons of two intents each."""
    asked = {
        "lost": ["my card is lost", "where is my card", "lost my card", "the card was stolen"],
        "rate": ["the exchange rate of the euro", "rate of a pound", "where is the rate", "exchange rate please"],
        "failed": ["top up failed", "my top up was failed", "the top up failed please", "failed in top up"],
        "refund": ["refund please", "where is my refund", "a refund of my pound", "my refund is failed"],
    }
    pairs = (("lost", "rate"), ("failed", "refund"))
    return [Examples([q for name in pair for q in asked[name]], [n for n in pair for _ in asked[n]]) for pair in pairs]
