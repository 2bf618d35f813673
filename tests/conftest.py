"""Shared fixtures: shapes checked at run time, tiny encoders, small tasks, and real data where there is some."""

import gc
import itertools
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis.strategies import none
from jaxtyping import install_import_hook
from PIL import Image

from databases import Database, SqlDatabase, ValkeyDatabase, postgresql_server, valkey_server
from newcomer.data.examples import Examples
from shell import Shell
from slow_tests import Durations, mark_slow
from tiny_tasks import digit_tasks, question_tasks

gc.disable()  # until all is imported and collected, which is for the whole session
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of transformers: no test needs the network
torch.set_num_threads(1)  # the tests run side by side

# The verdict is the code's alone; `pytest --hypothesis-profile default` draws examples anew.
settings.register_profile("settled", derandomize=True, deadline=None)  # a crowded machine is no failure
settings.load_profile("settled")

install_import_hook(["newcomer.nn", "newcomer.metrics"], "beartype.beartype")  # from here on, in whatever imports them


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-slow", action="store_true", help="add tests that take long to slow_tests.txt")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--list-slow") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations())


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow(items)


@given(none())
def _first_example(_: None) -> None:
    """Hypothesis makes its random numbers at the first one, and asks the garbage collector whether anything holds them."""


def pytest_collection_finish() -> None:
    """From here on garbage is collected, but not searched for in what stays."""
    _first_example()  # of what stays the collector knows no holders
    gc.collect()
    gc.freeze()
    gc.enable()


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
            place = tmp_path_factory.mktemp(kind)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what transformers deprecates of itself while it writes
                _write_encoder(kind, place)
            made[kind] = place
        return made[kind]

    return folder


SENTENCE = "lost stolen my card is was where the rate exchange of euro pound top up failed refund please a in"


def _write_encoder(kind: str, folder: Path) -> None:
    """Width 16, two layers, two heads; pictures of 8 × 8 pixels in four patches, or texts of 24 tokens at most."""
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
    picture = size | {"image_size": 8, "patch_size": 4, "mlp_ratio": 2}
    text = size | {"vocab_size": len(words) + 4, "max_position_embeddings": 24, "pad_token_id": 0}
    padded_by_1 = text | {"pad_token_id": 1}
    towers = {"text_config": text, "vision_config": picture}
    square = {"height": 8, "width": 8}
    whole, cut = {"size": square}, {"size": {"shortest_edge": 10}, "crop_size": square}
    timm = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
        "pretrained_cfg": {"input_size": [3, 8, 8], "crop_pct": 0.8, "mean": [0.5] * 3, "std": [0.25] * 3},
    }
    pictures: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
        "vit": ("ViT", picture, "ViT", whole),
        "deit": ("DeiT", picture, "DeiT", whole | {"crop_size": square}),
        "dinov2": ("Dinov2", picture, "Bit", cut),
        "dinov2_with_registers": ("Dinov2WithRegisters", picture | {"num_register_tokens": 2}, "Bit", cut),
        "dinov3_vit": ("DINOv3ViT", picture | {"num_register_tokens": 2}, "ViT", whole),  # its own needs torchvision
        "clip": ("CLIP", towers, "CLIP", cut),
        "clip_vision_model": ("CLIPVision", picture, "CLIP", cut),
        "siglip": ("Siglip", towers, "Siglip", whole),
        "siglip_vision_model": ("SiglipVision", picture, "Siglip", whole),
        "timm_wrapper": ("TimmWrapper", timm, "", {}),  # its preprocessing stands in its config
    }
    torch.manual_seed(0)
    if kind == "timm_wrapper":
        pytest.importorskip("timm")
    if kind in pictures:
        model, settings, processor, sizes = pictures[kind]
        getattr(hf, f"{model}Model")(getattr(hf, f"{model}Config")(**settings)).save_pretrained(folder)
        if processor:
            getattr(hf, f"{processor}ImageProcessorPil")(**sizes).save_pretrained(folder)
        return
    near = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    texts: dict[str, tuple[str, dict[str, Any]]] = {
        "bert": ("Bert", text),
        "roberta": ("Roberta", padded_by_1),
        "xlm-roberta": ("XLMRoberta", padded_by_1),
        "distilbert": ("DistilBert", text | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
        "electra": ("Electra", text | {"embedding_size": 8}),
        "mpnet": ("MPNet", padded_by_1),
        "deberta-v2": ("DebertaV2", text | near | {"position_biased_input": False, "share_att_key": True}),
        "modernbert": ("ModernBert", text | {"global_attn_every_n_layers": 2, "local_attention": 4}),
        "fnet": ("FNet", text),
        "roformer": ("RoFormer", text | {"embedding_size": 16}),
    }
    width = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "vocab_size": len(words) + 4}
    narrow = text | {"num_key_value_heads": 1, "head_dim": 8, "pad_token_id": None}
    windows = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
    decoders: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
        "gpt2": ("GPT2LMHeadModel", width, {"eos_token": "</s>"}),
        "gpt_neox": ("GPTNeoXForCausalLM", text, {"eos_token": "</s>"}),
        "llama": ("LlamaForCausalLM", narrow, {"bos_token": "<s>", "eos_token": "</s>"}),
        "mistral": ("MistralForCausalLM", narrow | {"sliding_window": 3}, {"bos_token": "<s>", "eos_token": "</s>"}),
        "qwen2": ("Qwen2ForCausalLM", narrow | {"vocab_size": 257}, {}),
        "qwen3": ("Qwen3ForCausalLM", narrow, {"pad_token": "[PAD]"}),
        "gemma": ("GemmaForCausalLM", narrow, {"bos_token": "<s>", "pad_token": "[PAD]", "padding_side": "left"}),
        "gemma2": ("Gemma2ForCausalLM", narrow | windows, {"bos_token": "<s>", "pad_token": "[PAD]"}),
        "gemma3_text": (
            "Gemma3ForCausalLM",
            narrow | windows,
            {"bos_token": "<s>", "pad_token": "[PAD]", "padding_side": "left"},
        ),
    }
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    template = "<s> $A </s>"
    if kind in decoders:  # as published: with the layer that predicts tokens, which is not read
        model, settings, special = decoders[kind]
        template = "<s> $A" if "bos_token" in special else "$A"
        whole = getattr(hf, model)
        whole(whole.config_class(**settings)).save_pretrained(folder)
    else:
        model, settings = texts[kind]
        getattr(hf, f"{model}Model")(getattr(hf, f"{model}Config")(**settings)).save_pretrained(folder)
    if kind == "qwen2":  # transformers reads it by a tokenizer of bytes alone
        alphabet = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
        letters = {letter: i for i, letter in enumerate(alphabet)}
        hf.Qwen2Tokenizer(vocab=letters, merges=[]).save_pretrained(folder)
        return
    pads = ["<s>", "[PAD]"] if settings is padded_by_1 else ["[PAD]", "<s>"]
    vocabulary = {word: i for i, word in enumerate([*pads, "</s>", "[UNK]", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=template, special_tokens=[(mark, vocabulary[mark]) for mark in ("<s>", "</s>")]
    )
    hf.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **special
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], SqlDatabase]]:
    """Makes a database on a PostgreSQL server, which starts at the first use."""
    with postgresql_server() as create:
        yield create


@pytest.fixture
def sqlite(tmp_path: Path) -> Callable[[], SqlDatabase]:
    """Makes a SQLite database in the folder of the test."""
    numbers = itertools.count()
    return lambda: SqlDatabase("sqlite", f"sqlite:///{tmp_path / f'items-{next(numbers)}.db'}")


@pytest.fixture(scope="session")
def valkey() -> Iterator[Callable[[], ValkeyDatabase]]:
    """Makes a database on a Valkey server, which starts at the first use."""
    with valkey_server() as create:
        yield create


@pytest.fixture(params=["sqlite", "postgresql", "valkey"])
def databases(request: pytest.FixtureRequest) -> Callable[[], Database]:
    """Makes empty databases of each kind."""
    created: Callable[[], Database] = request.getfixturevalue(request.param)
    return created


@pytest.fixture
def database(databases: Callable[[], Database]) -> Database:
    """An empty database of each kind."""
    return databases()


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_database(request: pytest.FixtureRequest) -> SqlDatabase:
    """An empty SQL database of each kind."""
    created: SqlDatabase = request.getfixturevalue(request.param)()
    return created


@pytest.fixture(scope="session")
def tasks() -> list[Examples]:
    """Three tasks of two digits each, six pictures a digit."""
    return digit_tasks()


@pytest.fixture(scope="session")
def questions() -> list[Examples]:
    """Two tasks of two intents each."""
    return question_tasks()


RECIPE = """
[data]
name = "image-folder"
path = "birds"
[stream]
tasks = 2
[backbone]
name = "{backbone}"
[learner]
name = "sd-lora"
rank = 2
epochs = 1
batch_size = 4
"""


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tiny: Callable[[str], Path]
) -> Shell:
    folder = tmp_path / "here"
    for split in ("train", "test"):
        for name in ("finch", "robin", "tit", "wren"):
            (folder / "birds" / split / name).mkdir(parents=True)
            for number in range(3):
                noise = random.Random(f"{split} {name} {number}").randbytes(64)
                Image.frombytes("L", (8, 8), noise).save(folder / "birds" / split / name / f"{number}.png")
    (folder / "birds.toml").write_text(RECIPE.format(backbone=tiny("vit")))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NEWCOMER_DATA", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        from newcomer import cli  # not before the import hook is there

        monkeypatch.setattr(sys, "argv", ["newcomer", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        out, err = capfd.readouterr()
        return code, out, err

    return Shell(folder, call)
