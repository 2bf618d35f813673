"""Several processes learn the same as one, and the first alone writes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.loader import Loader
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.datasets.digits import digits
from newcomer.data.examples import Examples, Input
from newcomer.streams.class_incremental import ClassIncremental
from newcomer.training.launcher import is_first
from newcomer.training.processes import Processes
from shell import Shell

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.datasets.digits import digits
from newcomer.streams.class_incremental import ClassIncremental
stream = ClassIncremental(*digits(), tasks=5, train_per_class=7, eval_per_class=5)
learner = SDLoRA("micro-vit", rank=2, epochs=2, batch_size=5, learning_rate=1e-3, device="cpu")
for stage, _ in zip(stream, range(2)):
    learner.learn(stage.train)
    learner.save(sys.argv[1])
"""


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["torch.distributed.run"], id="torchrun"),
        pytest.param(["accelerate.commands.launch", "--cpu"], id="accelerate", marks=pytest.mark.slow),
    ],
)
def test_two_processes_learn_what_one_does(launcher: list[str], tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "train.py").write_text(SCRIPT)
    count = (
        ["--nproc_per_node=2", "--master_port", port]
        if len(launcher) == 1
        else ["--num_processes=2", "--main_process_port", port]
    )
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *count, str(tmp_path / "train.py"), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    together = SDLoRA.load(tmp_path / "store")
    stream = ClassIncremental(*digits(), tasks=5, train_per_class=7, eval_per_class=5)
    alone = SDLoRA("micro-vit", rank=2, epochs=2, batch_size=5, learning_rate=1e-3, device="cpu")
    for stage, _ in zip(stream, range(2), strict=False):
        alone.learn(stage.train)
    asked = stage.eval_sets["task 1"].inputs
    torch.testing.assert_close(together.features(asked), alone.features(asked), atol=2e-3, rtol=1e-3)
    assert together.classes == alone.classes
    assert together.memory.statistics.count.tolist() == alone.memory.statistics.count.tolist()


def together(shell: Shell, *words: str) -> str:
    """What the command says in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", free_port()]
    done = subprocess.run(
        [*command, "-m", "newcomer", *words],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # two more processes
def test_a_run_in_two_processes_is_written_by_one(shell: Shell) -> None:
    together(shell, "run", "birds.toml", "--out", "runs", "--set", "learner.device=cpu")
    record = shell.folder / "runs" / "sd-lora" / "seed-0" / "record.jsonl"
    events = [json.loads(line)["event"] for line in record.read_text().splitlines()]
    assert [event for event in events if event != "step"] == [
        "start",
        "score",
        "stage",
        "score",
        "score",
        "stage",
        "end",
    ]


@pytest.mark.slow  # two more processes
def test_a_task_in_two_processes_is_written_by_one(shell: Shell) -> None:
    together(shell, "learn", "model", "birds", "--backbone", "micro-vit", "--set", "epochs=1", "--set", "device=cpu")
    assert SDLoRA.load(shell.folder / "model").classes == ["finch", "robin", "tit", "wren"]


EXITS = """
import os, sys
from newcomer.training.processes import Processes
import accelerate  # before the fork: it takes seconds
os.environ.update(WORLD_SIZE="2", MASTER_ADDR="localhost")
keeps, *ports = sys.argv[1:]
for port in ports:
    os.environ["MASTER_PORT"], children = port, []
    for rank in range(2):
        if not (child := os.fork()):
            os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
            sys.setswitchinterval(1000)  # another thread gets the interpreter only where this one waits
            group = Processes("cpu")
            if keeps == "import":
                import torch.distributed.fsdp  # as torch's optimizers do in their first step
            elif keeps == "model":
                kept = sys.modules["torch"].distributed.group.WORLD  # as a sharded model does
            for number in range(30):
                group.agree(f"step {number}")
            sys.exit()
        children.append(child)
    assert not any(os.waitpid(child, 0)[1] for child in children)
"""


@pytest.mark.slow
@pytest.mark.parametrize("keeps", ["nothing", "import", "model"])
def test_a_process_ends_well_right_after_an_exchange(keeps: str) -> None:
    """Without an orderly end of the connection, half of these pairs of processes are aborted by one of its threads.

    Whatever else refers to the connection.
    """
    ports = [free_port() for _ in range(8)]
    done = subprocess.run(
        [sys.executable, "-c", EXITS, keeps, *ports], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_a_script_that_ends_half_way_through_a_task_ends_quietly() -> None:
    begun, _, _ = SCRIPT.partition("for stage")
    script = (
        begun + "task = learner.fit_stage(next(iter(stream)))\nnext(step for step in task if step.part == 'task 0')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_shares_of_a_batch_are_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Processes("cpu")
    assert (is_first(), one.count) == (True, 1)
    assert list(one.share(range(5))) == [0, 1, 2, 3, 4]
    found: list[int] = []
    for index in range(3):
        one.count, one.index = 3, index
        found += one.share(range(7))
    assert sorted(found) == list(range(7))


def test_gradients_in_parts_are_those_of_the_whole_batch(tiny: Callable[[str], Path]) -> None:
    stream = ClassIncremental(*digits(), tasks=5, train_per_class=7)
    features = []
    for parts in (1, 3, 50):
        learner = SDLoRA(
            "micro-vit", rank=2, epochs=2, batch_size=5, learning_rate=1e-3, gradient_accumulation_steps=parts
        )
        stage = next(iter(stream))
        learner.learn(stage.train)
        features.append(learner.features(stage.train.inputs))
    torch.testing.assert_close(features[0], features[1], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(features[0], features[2], atol=2e-3, rtol=1e-3)


def test_parts_of_texts_are_the_whole_batch_with_less_padding(
    tiny: Callable[[str], Path], questions: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, sizes = questions[0], []
    preprocess = Backbone.preprocess

    def counted(self: Backbone, inputs: Sequence[Input]) -> dict[str, torch.Tensor]:
        found = preprocess(self, inputs)
        sizes.append(found["input_ids"].numel())
        return found

    monkeypatch.setattr(Backbone, "preprocess", counted)
    features, padded = [], []
    for parts in (1, 4):
        learner = SDLoRA(
            str(tiny("bert")), rank=2, epochs=1, batch_size=8, learning_rate=1e-3, gradient_accumulation_steps=parts
        )
        feed = Loader(learner.backbone, task.inputs, 0)
        assert learner.loop is not None
        rows = learner.loop._micro_batches(feed, range(8))
        assert sorted(row for part in rows for row in part) == list(range(8))
        sizes.clear()
        for part in rows:
            feed.read(part)
        padded.append(sum(sizes))
        features.append(learner.learn(task).features(task.inputs))
    torch.testing.assert_close(features[0], features[1], atol=1e-5, rtol=1e-4)
    assert padded[1] < padded[0]
