"""Backbones whose blocks are spread over processes: the same learner, of whose frozen weights each process holds a share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from newcomer.classes.learner import ClassLearner
from newcomer.errors import SettingError
from newcomer.loading import load
from newcomer.registry import find_learner
from newcomer.training.processes import Processes
from test_processes import free_port
from tiny_tasks import odd_tasks

Folder = Callable[[str], Path]

LEARN = """
import json, os, sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
warnings.simplefilter("error", UserWarning)
from newcomer.backbones.backbone import Backbone
from newcomer.data.examples import Examples
from newcomer.nn.gradient_checkpointing import blocks_of
from newcomer.nn.lora import decoupled_linear
from newcomer.registry import find_learner
from tiny_tasks import odd_tasks
folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])

def is_whole(block):
    return not any(hasattr(p, "placements") for p in block.parameters())

found, blocks, whole, cheaper = {}, [], [], decoupled_linear.low_rank_is_cheaper

def noted(*how):
    # in a backward pass
    whole.append(sum(map(is_whole, blocks)))
    return cheaper(*how)

decoupled_linear.low_rank_is_cheaper = noted
for case, (method, encoder, how, settings) in cases.items():
    logits = []
    for shards in (True, False):
        backbone = Backbone(encoder, **how)
        blocks[:], whole[:] = blocks_of(backbone.model), []
        frozen = sum(p.numel() for block in blocks for p in block.parameters())
        learner = find_learner(method)(backbone, **settings, device="cpu", shard_backbone=shards)
        for block in blocks:
            block.register_forward_pre_hook(lambda *_: whole.append(sum(map(is_whole, blocks))))
        tasks = odd_tasks(backbone.reads_images)
        for task in tasks:
            learner.learn(task)
        logits.append(learner.logits([*tasks[0].inputs, *tasks[1].inputs]))
        if shards:
            held = [p.to_local() for block in blocks for p in block.parameters()]
            found[case] = {"share": sum(p.untyped_storage().nbytes() // p.itemsize for p in held) / frozen}
            found[case] |= {"whole in a pass": max(whole), "whole afterwards": sum(map(is_whole, blocks))}
            learner.save(folder / case)
    found[case]["equal"] = torch.equal(*logits)
(folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))
"""
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 5}
"""Of 11 examples: the last batch has one, and the second process none."""
LOW_RANK: dict[str, Any] = SHORT | {"rank": 2, "learning_rate": 1e-3}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "pictures": ("sd-lora", "micro-vit", {}, LOW_RANK),  # four blocks, the tiny ones have two
    "crops": ("sd-lora", "micro-vit", {}, LOW_RANK | {"augment": "crop"}),
    "micro-batches": (
        "sd-lora",
        "bert",
        {},
        LOW_RANK | {"gradient_accumulation_steps": 3, "logit_distillation": 1.0, "gradient_checkpointing": True},
    ),
    "bf16": ("sd-lora", "qwen3", {"dtype": "bfloat16"}, LOW_RANK),
    "mixed precision": ("inf-lora", "bert", {}, SHORT | {"rank": 2, "precision": "bf16"}),
    "trial": ("sd-lora", "vit", {}, LOW_RANK | {"adapt": "auto"}),
    "one update": ("sequential-lora", "siglip", {}, LOW_RANK),
    "subspaces": ("ease", "dinov2", {}, SHORT | {"rank": 2}),
    "prompts": ("l2p", "vit", {}, SHORT),
    "prefixes": ("coda-prompt", "clip", {}, SHORT),
    "frozen": ("frozen", "gpt2", {"dtype": "float16"}, {}),
}


def together(script: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Two processes of this script."""
    (folder / "script.py").write_text(script)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", free_port()]
    return subprocess.run(
        [sys.executable, *launcher, str(folder / "script.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture(scope="module")
def learned(tiny: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stores that two processes with sharded backbones learned, and of what each saw."""
    folder = tmp_path_factory.mktemp("sharded")
    cases = {
        case: (method, kind if kind == "micro-vit" else str(tiny(kind)), how, settings)
        for case, (method, kind, how, settings) in CASES.items()
    }
    done = together(LEARN, folder, str(folder), json.dumps(cases))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow  # two more processes
@pytest.mark.parametrize("case", CASES)
def test_two_processes_that_hold_half_each_learn_what_two_with_all_weights_do(case: str, learned: Path) -> None:
    """Bit by bit; at most the block that is computed and the next one are whole, in backward passes, too."""
    for seen in (json.loads((learned / f"{rank}.json").read_text())[case] for rank in range(2)):
        assert seen["equal"]
        assert 0.45 < seen["share"] < 0.55
        assert 1 <= seen["whole in a pass"] <= 2
        assert seen["whole afterwards"] == 0


@pytest.mark.slow  # two more processes
@pytest.mark.parametrize("case", ["pictures", "micro-batches", "one update", "prompts"])
def test_their_store_is_that_of_one_process(case: str, learned: Path, tmp_path: Path) -> None:
    method, _, _, settings = CASES[case]
    opened = load(learned / case)
    assert isinstance(opened, ClassLearner)
    make: Any = find_learner(method)
    alone: ClassLearner = make(opened.backbone.name, **settings, device="cpu")
    for task in odd_tasks(opened.backbone.reads_images):
        alone.learn(task)
    alone.save(tmp_path / "alone")
    stores = [json.loads((folder / "manifest.json").read_text()) for folder in (learned / case, tmp_path / "alone")]
    assert stores[0]["settings"] == stores[1]["settings"]
    for file in sorted((tmp_path / "alone").glob("*.safetensors")):
        one, other = load_file(file), load_file(learned / case / file.name)
        assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in other.items()}
    torch.testing.assert_close(opened.logits(task.inputs), alone.logits(task.inputs), atol=2e-2, rtol=2e-3)


REFUSED = """
import json, os, sys
from pathlib import Path
from threading import Thread
from torch import nn
from newcomer.backbones.backbone import Backbone
from newcomer.classes.analysis import analyse
from newcomer.errors import NewcomerError
from newcomer.registry import find_learner
from tiny_tasks import odd_tasks
folder, encoder, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
found = {}

def said(name, do):
    try:
        do()
    except NewcomerError as error:
        found[name] = f"{type(error).__name__}: {error}"

def sharded(method, backbone=encoder, **settings):
    return find_learner(method)(backbone, device="cpu", shard_backbone=True, **settings)

for method in ("full-fine-tuning", "slca", "e2-lora", "cl-lora"):
    said(method, lambda: sharded(method))
said("compiled", lambda: sharded("sd-lora", torch_compile=True))
flat = Backbone(encoder)
flat.model.set_submodule("layers", nn.ModuleList([flat.model.get_submodule("layers.0")]))
said("no blocks", lambda: sharded("frozen", flat))

learner = sharded("sd-lora", epochs=1, batch_size=8, rank=2)
task = odd_tasks(True)[0]
learner.learn(task)
said("shared", lambda: find_learner("full-fine-tuning")(learner.backbone, device="cpu"))
said("export", learner.encoder_weights)
said("analysis", lambda: list(analyse(learner, None)))
worker = Thread(target=lambda: said("thread", lambda: learner.predict(task.inputs)))
worker.start()
worker.join()
said("other inputs", lambda: learner.predict(task.inputs[: 2 + rank]))
said("other command", lambda: learner.save(folder / "store") if rank else learner.predict(task.inputs))
said("other task", lambda: learner.learn(task if rank else task.select(range(10))))
assert learner.features(task.inputs).isfinite().all()
assert not learner.loop.gradient_checkpointing
assert sharded("sd-lora", precision="bf16").loop.gradient_checkpointing  # else copies of all weights would be kept
(folder / f"{rank}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow  # two more processes
def test_what_cannot_be_sharded_or_would_wait_for_ever_is_refused_in_a_line(tiny: Folder, tmp_path: Path) -> None:
    done = together(REFUSED, tmp_path, str(tmp_path), str(tiny("vit")))
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert not any("\n" in line for line in first.values())
    assert "FullFineTuning: shard_backbone" in first["full-fine-tuning"]
    assert "FullFineTuning: shard_backbone" in first["shared"]
    assert "SLCA: shard_backbone" in first["slca"]
    assert "E2LoRA: shard_backbone" in first["e2-lora"]
    assert "CLLoRA: shard_backbone" in first["cl-lora"]
    assert "torch_compile" in first["compiled"]
    assert "no list of equal blocks" in first["no blocks"]
    assert "an export takes whole weights" in first["export"]
    assert "an analysis takes whole weights" in first["analysis"]
    assert "thread" in first["thread"]
    assert "process 0: features of 2 inputs, process 1: features of 3 inputs" in first["other inputs"]
    assert "process 0: features of 11 inputs, process 1: save" in first["other command"]
    assert "process 0: learn 10 examples, process 1: learn 11 examples" in first["other task"]


def test_one_process_has_nobody_to_share_with(tiny: Folder) -> None:
    for method in ("sd-lora", "frozen"):
        make: Any = find_learner(method)
        with pytest.raises(SettingError, match=r"shard_backbone: there is one process.*torchrun"):
            make(str(tiny("vit")), device="cpu", shard_backbone=True)


def test_one_process_agrees_with_itself() -> None:
    Processes("cpu").agree("learn")


def test_sizes_of_shares_are_those_of_the_shares() -> None:
    three = Processes("cpu")
    three.count = 3
    for size in range(8):
        assert three.shares(size) == [len(range(size)[index::3]) for index in range(3)]
