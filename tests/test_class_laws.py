"""Laws of every learner of classes."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from covering import covering, parametrize_law, values
from newcomer.backbones.backbone import Backbone
from newcomer.classes.head_alignment import HeadAlignment
from newcomer.classes.learner import ClassLearner
from newcomer.classes.lora_adapters import LoRAAdapter
from newcomer.classes.methods.cl_lora import CLLoRA
from newcomer.classes.methods.coda_prompt import CODAPrompt
from newcomer.classes.methods.dual_prompt import DualPrompt
from newcomer.classes.methods.e2_lora import E2LoRA, SharedOutputs
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
from newcomer.classes.parts import Part
from newcomer.classes.prompt_adapter import PromptAdapter
from newcomer.classes.trained_weights import TrainedWeights
from newcomer.data.examples import Examples, Input
from newcomer.errors import DataError, DataWarning, LearnerError, SettingError, StoreError
from newcomer.experiments import recipe
from newcomer.streams.stage import Stage
from newcomer.training.learner import MACHINE_SETTINGS

pytestmark = pytest.mark.filterwarnings("ignore:task .* the frozen backbone .* is as good as a trained one")

TRAINED: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "rank": 2}
WHOLE: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
PROMPTED: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2}
ALIGNED: dict[str, Any] = {"alignment_epochs": 2, "alignment_draws": 8, "head_learning_rate": 5e-2}
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sd-lora": ("vit", SDLoRA, TRAINED),
    "sd-lora, a magnitude each projection": ("vit", SDLoRA, TRAINED | {"magnitude_sharing": "projection"}),
    "sd-lora, cosine, own head rate": ("vit", SDLoRA, TRAINED | {"schedule": "cosine", "head_learning_rate": 5e-3}),
    "sd-lora, slower later, averaged": ("vit", SDLoRA, TRAINED | {"later_lr_factor": 0.5, "weight_averaging": 0.5}),
    "sd-lora, tempered rows": ("vit", SDLoRA, TRAINED | {"head_init": "tempered"}),
    "sd-lora, rows from zero": ("vit", SDLoRA, TRAINED | {"head_init": "zero"}),
    "sd-lora, the paper's head": ("vit", SDLoRA, TRAINED | {"head_init": "zero", "head": "linear", "drift_map": False}),
    "sd-lora, ridge": ("vit", SDLoRA, TRAINED | {"head": "ridge"}),
    "sd-lora, prototypes, without drift map": ("vit", SDLoRA, TRAINED | {"head": "prototypes", "drift_map": False}),
    "sd-lora, gaussian": ("vit", SDLoRA, TRAINED | {"head": "gaussian"}),
    "sd-lora, the best head": ("vit", SDLoRA, TRAINED | {"head": "auto"}),
    "sd-lora, adapts if that helps": ("vit", SDLoRA, TRAINED | {"head": "auto", "adapt": "auto"}),
    "sd-lora, old logits kept": ("vit", SDLoRA, TRAINED | {"logit_distillation": 2.0, "augment": "flip"}),
    "sd-lora, kernel, on texts": ("bert", SDLoRA, TRAINED | {"head": "kernel", "prior": "empirical"}),
    "sd-lora-rr": ("vit", SDLoRA, TRAINED | {"rank": [[1, 3], [2, 1]]}),
    "sd-lora-kd that always fires": ("vit", SDLoRA, TRAINED | {"kd_threshold": 1.0}),
    "sd-lora, augmented, in parts": (
        "vit",
        SDLoRA,
        TRAINED | {"augment": "crop", "gradient_accumulation_steps": 3, "cache_gib": 0},
    ),
    "sd-lora, bf16": ("vit", SDLoRA, TRAINED | {"precision": "bf16"}),
    "sd-lora on texts": ("bert", SDLoRA, TRAINED),
    "sd-lora on a decoder with fused layers": ("gpt2", SDLoRA, TRAINED),
    "sd-lora on a decoder with narrow values": ("llama", SDLoRA, TRAINED | {"head": "lda"}),
    "sd-lora on a decoder with normed queries": ("qwen3", SDLoRA, TRAINED | {"magnitude_sharing": "projection"}),
    "sd-lora on a decoder with windows, kernel": ("gemma3_text", SDLoRA, TRAINED | {"head": "kernel"}),
    "sd-lora, many settings of training": (
        "vit",
        SDLoRA,
        TRAINED
        | {"magnitude_sharing": "projection", "schedule": "cosine", "head_learning_rate": 5e-3, "head": "gaussian"}
        | {"augment": "crop", "gradient_accumulation_steps": 3, "cache_gib": 0, "precision": "bf16"},
    ),
    "sd-lora, ranks, slower later, averaged, kd that always fires": (
        "vit",
        SDLoRA,
        TRAINED
        | {"rank": [[1, 3], [2, 1]], "later_lr_factor": 0.5, "weight_averaging": 0.5, "kd_threshold": 1.0}
        | {"head": "ridge"},
    ),
    "sequential, new classes": ("vit", SequentialLoRA, TRAINED | {"loss_classes": "new", "head": "lda"}),
    "sequential, seen classes": ("vit", SequentialLoRA, TRAINED | {"loss_classes": "seen", "prior": "empirical"}),
    "sequential, first task only": ("vit", SequentialLoRA, TRAINED | {"adapted_tasks": 1, "head": "lda"}),
    "sequential, first task only, trained rows": ("vit", SequentialLoRA, TRAINED | {"adapted_tasks": 1}),
    "inf-lora": ("vit", InfLoRA, TRAINED | {"total_tasks": 2, "schedule": "constant"}),
    "inf-lora, lda, on texts": ("bert", InfLoRA, TRAINED | {"threshold": 0.8, "head": "lda"}),
    "inf-lora on a decoder": ("qwen3", InfLoRA, TRAINED | {"total_tasks": 2, "head": "lda"}),
    "full fine-tuning": ("vit", FullFineTuning, WHOLE),
    "full fine-tuning of a decoder": ("gpt2", FullFineTuning, WHOLE),
    "full fine-tuning of a part, seen classes, bf16": (
        "vit",
        FullFineTuning,
        WHOLE | {"weights": ["layer.1.", "layers.1."], "loss_classes": "seen", "head": "lda", "precision": "bf16"},
    ),
    "ranpac": ("vit", RanPAC, {"projection_dim": 40, "adapt_first_task": "none"}),
    "ranpac, first task adapted": ("vit", RanPAC, TRAINED | {"projection_dim": 40, "adapt_first_task": "lora"}),
    "ranpac on a decoder": (
        "llama",
        RanPAC,
        TRAINED | {"projection_dim": 40, "adapt_first_task": "lora", "prior": "empirical"},
    ),
    "l2p": ("vit", L2P, PROMPTED | {"pool_size": 4, "top_k": 2}),
    "l2p, lda, drift map, on texts": ("bert", L2P, PROMPTED | {"head": "lda", "drift_map": True}),
    "dual-prompt": ("vit", DualPrompt, PROMPTED),
    "dual-prompt, lda, on texts": ("bert", DualPrompt, PROMPTED | {"head": "lda"}),
    "coda-prompt": ("vit", CODAPrompt, PROMPTED | {"components": 3}),
    "coda-prompt, lda, on texts": ("bert", CODAPrompt, PROMPTED | {"head": "lda", "components": 9}),
    "coda-prompt on a decoder": ("gpt2", CODAPrompt, PROMPTED | {"components": 3}),
    "coda-prompt, bf16, in parts": (
        "vit",
        CODAPrompt,
        PROMPTED | {"precision": "bf16", "gradient_accumulation_steps": 3},
    ),
    "klda": ("vit", KLDA, {"projection_dim": 40}),
    "slca": ("vit", SLCA, WHOLE | ALIGNED),
    "slca, lda, drift map, on texts": ("bert", SLCA, WHOLE | ALIGNED | {"head": "lda", "drift_map": True}),
    "e2-lora": ("vit", E2LoRA, WHOLE | ALIGNED | {"threshold": 0.9}),
    "e2-lora, ridge, bf16, on texts": ("bert", E2LoRA, WHOLE | ALIGNED | {"head": "ridge", "precision": "bf16"}),
    "ease": ("vit", EASE, TRAINED),
    "ease, cosine, bf16, on texts": (
        "bert",
        EASE,
        TRAINED | {"schedule": "cosine", "precision": "bf16", "alpha": 0.5, "prior": "empirical"},
    ),
    "cl-lora": ("vit", CLLoRA, TRAINED),
    "cl-lora, cosine, in parts, on texts": (
        "bert",
        CLLoRA,
        TRAINED | {"schedule": "cosine", "gradient_accumulation_steps": 3, "shared_blocks": 0.1},
    ),
    "prototypes": ("vit", FrozenBackbone, {"head": "prototypes"}),
    "ridge": ("vit", FrozenBackbone, {"head": "ridge", "prior": "empirical"}),
    "gaussian": ("vit", FrozenBackbone, {"head": "gaussian"}),
    "kernel": ("vit", FrozenBackbone, {"head": "kernel"}),
    "lda": ("vit", FrozenBackbone, {"head": "lda"}),
    "the best head": ("vit", FrozenBackbone, {"head": "auto"}),
    "lda on texts": ("bert", FrozenBackbone, {"head": "lda"}),
    "lda on a decoder": ("gemma3_text", FrozenBackbone, {"head": "lda"}),
}
PEERS = KLDA, SLCA, EASE, CLLoRA, E2LoRA
"""Learners that take turns with each other: in every run each law meets one of them, and with the slow tests all."""


def cases(names: Iterable[str]) -> list[Any]:
    """As parameters; together those of every run meet every learner, encoder and value of a setting."""
    chosen = {name: CASES[name] for name in names}
    every = [settings for _, _, settings in chosen.values()]
    return covering({n: values(kind, every, own) | {("encoder", e)} for n, (e, kind, own) in chosen.items()})


Learned = dict[tuple[str, int], ClassLearner]
References = dict[tuple[str, int], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Case:
    """One learner, its tasks, and all their inputs."""

    name: str
    kind: Any
    settings: dict[str, Any]
    folder: Path
    tasks: Sequence[Examples]
    learned_once: Learned
    references: References

    def made(self, backbone: Backbone | str | None = None, **changes: Any) -> Any:
        return self.kind(backbone or str(self.folder), **self.settings | changes)

    def trained(self, count: int, **changes: Any) -> Any:
        """A learner that is trained here and now."""
        learner = self.made(**changes)
        for task in self.tasks[:count]:
            learner.learn(task)
        return learner

    def learned(self, count: int) -> Any:
        """A copy, with a backbone of its own, of a learner that is trained once."""
        if (self.name, count) not in self.learned_once:
            self.learned_once[self.name, count] = self.trained(count)
        return deepcopy(self.learned_once[self.name, count])

    def reference(self, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits and bits of a learner that was learned so many tasks and nothing else."""
        if (self.name, count) not in self.references:
            learner = self.learned(count)
            self.references[self.name, count] = learner.logits(self.asked), bits(learner)
        return self.references[self.name, count]

    @property
    def asked(self) -> list[Input]:
        return [x for task in self.tasks for x in task.inputs]


@pytest.fixture(scope="module")
def build(tiny: Callable[[str], Path], tasks: list[Examples], questions: list[Examples]) -> Callable[[str], Case]:
    learned_once: Learned = {}
    references: References = {}

    def built(name: str) -> Case:
        encoder, kind, settings = CASES[name]
        given = tasks if encoder == "vit" else questions
        return Case(name, kind, settings, tiny(encoder), given, learned_once, references)

    return built


def trains_in_every_task(kind: Any, settings: dict[str, Any]) -> bool:
    return kind not in (FrozenBackbone, KLDA) and not {"adapt_first_task", "adapted_tasks", "adapt"} & settings.keys()


PARAMETERS = {
    "case": cases(CASES),
    "trained": cases(name for name, (_, kind, how) in CASES.items() if trains_in_every_task(kind, how)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every law with every learner; the cases of a learner take turns, and so do the learners of `PEERS`."""
    kinds = {name: PEERS if kind in PEERS else kind for name, (_, kind, _) in CASES.items()}
    for fixture, parameters in PARAMETERS.items():
        parametrize_law(metafunc, fixture, parameters, kinds)


@pytest.fixture
def case(request: pytest.FixtureRequest, build: Callable[[str], Case]) -> Case:
    """Every learner."""
    return build(request.param)


@pytest.fixture
def trained(request: pytest.FixtureRequest, build: Callable[[str], Case]) -> Case:
    """Every learner that is trained by gradients in every task."""
    return build(request.param)


def bits(learner: ClassLearner) -> dict[str, Tensor]:
    """All that a learner has: every parameter and buffer of its parts, and what its last entry holds."""
    found = {f"backbone.{name}": t for name, t in learner.backbone.state_dict().items()}
    found |= {f"stored {place}": t for place, t in enumerate(learner._stored_tensors())}
    adapter = learner.adapter
    if learner.loop is not None:
        found |= {f"linear_head.{name}": t for name, t in learner.loop.linear_head.state_dict().items()}
    if isinstance(adapter, TrainedWeights):
        found |= {f"weights.{name}": t for name, t in adapter.weights.items()}
    if isinstance(adapter, PromptAdapter):
        found |= {f"prompts.{name}": t for name, t in adapter.prompts.state_dict().items()}
    if isinstance(adapter, SharedOutputs):
        found |= {f"outputs.{name}": t for name, t in adapter.lora.state_dict().items()}
    if isinstance(adapter, LoRAAdapter):
        found |= {f"bank.{name}": t for name, t in adapter.lora.state_dict().items()}
        found |= {f"up {p}": t for p, t in enumerate(adapter.lora.up)} | {
            f"down {p}": t for p, t in enumerate(adapter.lora.down)
        }
    found |= learner.memory.tensors()
    if learner.classes and learner.classifier.is_linear:
        found |= dict(zip(("weight", "bias"), learner.linear_classifier(), strict=True))
    return {name: t.detach().clone() for name, t in found.items()}


def same(one: Tensor, other: Tensor) -> bool:
    """To the bit; NaN, where there was nothing to measure, is itself."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(same(t, other[name]) for name, t in one.items())


def test_every_class_learner_of_the_recipes_is_here() -> None:
    assert {kind for _, kind, _ in CASES.values()} == set(recipe.CLASSES.learners.values())


def heirs(kind: Any) -> list[Any]:
    return [heir for child in kind.__subclasses__() for heir in (child, *heirs(child))]


def test_shipped_classes_are_abstract_or_final() -> None:
    """To know a method one reads its file and the parts that it names."""
    assert all(kind.__bases__ == (ClassLearner,) for kind in recipe.CLASSES.learners.values())
    shipped = [part for part in heirs(Part) if part.__module__.startswith("newcomer.")]
    assert len(shipped) > 12
    for part in shipped:
        assert inspect.isabstract(part) or not set(shipped) & set(part.__subclasses__())


def test_the_same_seed_gives_the_same_bits(case: Case) -> None:
    logits, wanted = case.reference(2)
    torch.manual_seed(123)  # chance from elsewhere shifts nothing
    again = case.trained(2)
    assert torch.equal(again.logits(case.asked), logits)
    assert equal(bits(again), wanted)


def test_another_seed_gives_other_bits(trained: Case) -> None:
    assert not torch.equal(trained.trained(1, seed=1).logits(trained.asked), trained.reference(1)[0])


def test_saved_and_loaded_gives_the_same_logits_to_the_bit(case: Case, tmp_path: Path) -> None:
    learner = case.made()
    early = [learner.learn(task).logits(case.asked) for task in case.tasks[:2]]
    learner.save(tmp_path / "store")
    loaded = case.kind.load(tmp_path / "store")
    assert torch.equal(loaded.logits(case.asked), early[1])
    assert loaded.classes == learner.classes
    kept = {key for key in learner.settings if key not in MACHINE_SETTINGS}
    assert {key: loaded.settings[key] for key in kept} == {key: learner.settings[key] for key in kept}
    before = case.kind.load(tmp_path / "store", stages=1)
    assert torch.equal(before.logits(case.asked), early[0])
    assert before.classes == learner.classes[:2]
    assert case.kind.load(tmp_path / "store", stages=0).classes == []


@pytest.mark.always
def test_learning_on_from_a_store_equals_never_stopped(case: Case, tmp_path: Path) -> None:
    learner = case.made()
    for task in case.tasks[:2]:
        learner.learn(task)
        learner.save(tmp_path / "store")
        first = (tmp_path / "store" / "stage-000.safetensors").read_bytes()
        learner = case.kind.load(tmp_path / "store")
    learner.save(tmp_path / "store")  # a store that was loaded is extended
    assert (tmp_path / "store" / "stage-000.safetensors").read_bytes() == first
    logits, wanted = case.reference(2)
    assert torch.equal(learner.logits(case.asked), logits)
    assert equal(bits(learner), wanted)


def learn_on(kind: type[ClassLearner], store: Path, task: Examples, asked: list[Input]) -> Any:
    """In another process: load, learn, save, predict."""
    torch.set_num_threads(1)
    learner = kind.load(store)
    learner.learn(task).save(store)
    return learner.logits(asked).numpy()


@pytest.fixture(scope="module")
def another() -> Iterator[ProcessPoolExecutor]:
    """One process for all learners: starting it is what takes the time."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield process


def test_learning_goes_on_in_another_process_to_the_same_bits(
    case: Case, another: ProcessPoolExecutor, tmp_path: Path
) -> None:
    case.learned(1).save(tmp_path / "store")
    task = Examples(list(case.tasks[1].inputs), case.tasks[1].labels)
    found = another.submit(learn_on, case.kind, tmp_path / "store", task, case.asked).result()
    wanted, _ = case.reference(2)
    assert torch.equal(torch.from_numpy(found), wanted)
    assert torch.equal(case.kind.load(tmp_path / "store").logits(case.asked), wanted)


def test_predicting_changes_neither_parameters_nor_modes(case: Case) -> None:
    learner = case.learned(1)
    learner.backbone.model.train()  # as a user may have left it
    next(learner.backbone.model.children()).eval()
    modes = [part.training for part in learner.backbone.modules()]
    before = bits(learner)
    gradients = torch.is_grad_enabled()
    learner.predict(case.asked)
    learner.evaluate(case.tasks[0])
    assert equal(bits(learner), before)
    assert [part.training for part in learner.backbone.modules()] == modes
    assert torch.is_grad_enabled() == gradients


def test_a_batch_is_its_examples(case: Case) -> None:
    learner = case.learned(2)
    together = learner.logits(case.asked)
    alone = torch.cat([learner.logits([x]) for x in case.asked])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert learner.logits([]).shape == (0, 4)
    assert learner.predict([]) == []


def test_predictions_are_names_of_classes(case: Case) -> None:
    learner = case.learned(2)
    answers = learner.predict(case.asked)
    assert answers == [learner.classes[i] for i in learner.logits(case.asked).argmax(1).tolist()]
    assert learner.predict(case.asked[3]) == answers[3]
    right = sum(a == b for a, b in zip(answers[: len(case.tasks[0])], case.tasks[0].labels, strict=True))
    assert learner.evaluate(case.tasks[0]) == {
        "accuracy": pytest.approx(right / len(case.tasks[0])),
        "examples": len(case.tasks[0]),
    }


def test_the_backbone_keeps_its_bits(case: Case) -> None:
    learner = case.made()
    before = {name: p.detach().clone() for name, p in learner.backbone.named_parameters()}
    for task in case.tasks[:2]:
        learner.learn(task)
    after = dict(learner.backbone.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in before.items())
    assert not any(p.requires_grad for p in after.values())


def test_what_a_stage_has_closed_keeps_its_bits(trained: Case) -> None:
    learner = trained.learned(1)
    weight, bias = (t.clone() for t in learner.loop.linear_head.rows())
    closed = range(
        learner.lora.directions if isinstance(learner.adapter, LoRAAdapter) else 0
    )  # none: all is trained on
    directions = [factor.clone() for task in closed for pair in learner.lora.direction(task) for factor in pair]
    learner.learn(trained.tasks[1])
    now = [factor for task in closed for pair in learner.lora.direction(task) for factor in pair]
    assert all(torch.equal(a, b) for a, b in zip(directions, now, strict=True))
    now_weight, now_bias = learner.loop.linear_head.rows()
    kept = torch.equal(now_weight[:2], weight) and torch.equal(now_bias[:2], bias)
    reinitialized = learner.loop.training.head_init != "zero"  # all rows, before each task
    distilled = learner.loop.training.logit_distillation > 0  # old logits are in the loss
    aligned = any(isinstance(part, HeadAlignment) for part in learner.parts)  # all rows, after each task
    assert kept == (learner.loop.loss_classes == "new" and not (reinitialized or distilled or aligned))


def test_every_trainable_parameter_receives_a_gradient(trained: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = trained.made(epochs=4)  # the head moves first, then B, then A and α
    fit, groups = learner.loop.fit, dict[str, list[torch.nn.Parameter]]()

    def watched(task: Any, adapter: Any, trained_groups: Any) -> Any:
        groups.clear()
        groups.update({**trained_groups, "head": list(learner.loop.linear_head.parameters())})
        return fit(task, adapter, trained_groups)

    monkeypatch.setattr(learner.loop, "fit", watched)
    for number, task in enumerate(trained.tasks[:2]):
        touched: dict[int, Tensor] = {}
        for step in learner.fit_stage(Stage(f"task {number}", task, {})):
            if step.part != f"task {number}":  # features are looked at
                continue
            for parameter in (p for group in groups.values() for p in group):
                assert parameter.grad is not None
                seen = touched.setdefault(id(parameter), torch.zeros_like(parameter, dtype=torch.bool))
                seen |= parameter.grad != 0
        assert {"factors", "head"} <= groups.keys()
        assert len(touched) == sum(len(group) for group in groups.values())
        assert all(seen.any() for seen in touched.values())
        assert all(touched[id(p)].all() for p in groups.get("magnitudes", ()))  # the closed tasks' ones, too


def interrupted(learner: ClassLearner, task: Examples, steps: int) -> None:
    fit_stage = learner.fit_stage(Stage(f"task {len(learner.entries)}", task, {}))
    for _ in range(steps):
        next(fit_stage)
    fit_stage.close()  # type: ignore[attr-defined]


class Damaged(list[Input]):
    """Inputs the last of which cannot be read."""

    def __getitem__(self, index: Any) -> Any:
        if index == len(self) - 1 or isinstance(index, slice):
            raise DataError("a damaged picture")
        return super().__getitem__(index)


@pytest.mark.parametrize("known", [0, 1])
def test_an_interrupted_training_leaves_the_learner_as_it_was(known: int, case: Case) -> None:
    learner = case.learned(known)
    before, classes = bits(learner), list(learner.classes)
    interrupted(learner, case.tasks[known], 1)
    assert equal(bits(learner), before)
    assert learner.classes == classes
    assert len(learner.entries) == known
    assert torch.equal(learner.learn(case.tasks[known]).logits(case.asked), case.reference(known + 1)[0])


@pytest.mark.parametrize("known", [0, 1])
def test_a_study_that_fails_leaves_the_learner_as_it_was(known: int, case: Case) -> None:
    learner = case.learned(known)
    before = bits(learner)
    task = case.tasks[known]
    with pytest.raises(DataError, match="a damaged picture"):
        learner.learn(Examples(Damaged(task.inputs), task.labels))
    assert equal(bits(learner), before)
    assert len(learner.classes) == 2 * known
    assert torch.equal(learner.learn(task).logits(case.asked), case.reference(known + 1)[0])


@pytest.mark.parametrize("epochs", [2, 8])
def test_divergence_is_an_error_and_changes_nothing(epochs: int, trained: Case) -> None:
    if trained.kind in (EASE, CLLoRA):
        return  # the first step of its new head, which is not kept, separates the classes: nothing diverges
    learner = trained.made(batch_size=100)
    learner.loop.training = replace(learner.loop.training, later_lr_factor=1.0, weight_averaging=0.0)
    learner.learn(trained.tasks[0])
    learner.loop.training = replace(learner.loop.training, epochs=epochs, learning_rate=1e30)
    before = bits(learner)
    with pytest.raises(
        LearnerError,
        match=r"(the loss became (nan|inf)|(the features|the inputs of a layer) are not finite); lower the learning rate",
    ):
        learner.learn(trained.tasks[1])
    assert equal(bits(learner), before)


def test_an_empty_task_is_refused_and_changes_nothing(case: Case) -> None:
    learner = case.learned(1)
    before = bits(learner)
    with pytest.raises(LearnerError, match="stage 'task 2' has no examples to learn from"):
        learner.learn(Examples([], []))
    assert equal(bits(learner), before)


def test_more_examples_of_known_classes_count_and_adapt_nothing(case: Case) -> None:
    learner = case.learned(1)
    adapted = ("lora.", "linear_head.", "up", "down", "weights.", "prompts.", "outputs.")
    parts = {name: t for name, t in bits(learner).items() if name.startswith(adapted)}
    answers, is_linear = learner.logits(case.asked), learner.settings.get("head") == "linear"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        learner.learn(case.tasks[0])
    said = [str(one.message) for one in caught]
    assert any("count twice" in line for line in said)
    assert any("no predicted class changes" in line for line in said) == is_linear
    assert not is_linear or torch.equal(learner.logits(case.asked), answers)
    assert len(learner.classes) == 2
    assert learner.memory.statistics.count.tolist() == [2 * case.tasks[0].labels.count(n) for n in learner.classes]
    assert equal(parts, {name: bits(learner)[name] for name in parts})


def test_a_task_may_mix_known_and_new_classes(case: Case) -> None:
    learner = case.learned(1)
    old, new = case.tasks[0], case.tasks[1]
    learner.learn(Examples([*new.inputs, old.inputs[0]], [*new.labels, old.labels[0]]))
    assert learner.classes == [*dict.fromkeys([*old.labels, *new.labels])]
    assert learner.memory.statistics.count[0] == old.labels.count(old.labels[0]) + 1
    assert learner.logits(case.asked).isfinite().all()


def test_a_single_new_class_is_known_afterwards(case: Case) -> None:
    learner = case.learned(1)
    task = case.tasks[1]
    one = task.select([i for i, label in enumerate(task.labels) if label == task.labels[0]])
    if learner.settings.get("head") == "linear":  # rows that are compared with nothing stay at zero
        with pytest.raises(LearnerError, match="the linear head learns nothing from a single class"):
            learner.learn(one)
        return
    learner.learn(one)
    assert learner.classes[-1] == task.labels[0]
    assert learner.logits(case.asked).shape[1] == 3
    assert learner.predict(one.inputs).count(task.labels[0]) > len(one) / 2


@pytest.mark.filterwarnings("ignore:.*no new class has two examples")
@pytest.mark.parametrize("counts", [(1, 1), (2, 5)])
def test_a_few_examples_of_each_class_are_enough(counts: tuple[int, int], case: Case) -> None:
    """Tasks of two classes with one example each, and of two and five."""
    learner = case.made()
    for task in case.tasks[:2]:
        rows = [
            row
            for name, count in zip(task.classes, counts, strict=True)
            for row in [i for i, label in enumerate(task.labels) if label == name][:count]
        ]
        learner.learn(task.select(rows))
    said = learner.logits(case.asked).softmax(1)
    assert said.shape[1] == 4
    assert said.isfinite().all()
    assert said.max(1).values.mean() < 0.97


def test_a_forgotten_class_is_offered_no_more(case: Case, tmp_path: Path) -> None:
    learner = case.learned(2)
    learner.save(tmp_path / "store")
    before, gone = learner.logits(case.asked), learner.classes[1]
    learner.forget(gone).save(tmp_path / "store")
    assert gone not in learner.classes
    assert gone not in learner.predict(case.asked)
    if learner.settings.get("head") in ("linear", "prototypes"):
        torch.testing.assert_close(learner.logits(case.asked), before[:, [0, 2, 3]])
    loaded = case.kind.load(tmp_path / "store")
    assert torch.equal(loaded.logits(case.asked), learner.logits(case.asked))
    assert torch.equal(case.kind.load(tmp_path / "store", stages=2).logits(case.asked), before)
    assert loaded.learn(case.tasks[0]).classes == [*learner.classes, gone]  # the class can be learned again
    with pytest.raises(LearnerError, match=f"class '{gone}' is not known; known: "):
        learner.forget(gone)


def test_answers_are_the_best_classes_with_probabilities(case: Case) -> None:
    learner = case.learned(2)
    logits = learner.logits(case.asked)
    for row, answer in zip(logits, learner.predict_topk(case.asked, top=3), strict=True):
        assert answer.classes == [
            learner.classes[i] for i in row.sort(descending=True, stable=True).indices[:3].tolist()
        ]
        assert answer.probabilities == sorted(answer.probabilities, reverse=True)
        assert 0 < sum(answer.probabilities) <= 1 + 1e-6
    assert len(learner.predict_topk(case.asked[:1], top=99)[0].classes) == 4
    refused = [
        sum(not a.known for a in learner.predict_topk(case.asked, reject=share)) for share in (0.0, 0.2, 0.5, 1.0)
    ]
    assert refused == sorted(refused)


def test_predicting_before_learning_is_an_error(case: Case) -> None:
    learner = case.made()
    with pytest.raises(LearnerError, match="has learned no class; call learn first"):
        learner.predict(case.asked)
    with pytest.raises(
        LearnerError, match=f"the evaluation set has class '{case.tasks[1].labels[0]}', which was never learned"
    ):
        case.learned(1).evaluate(case.tasks[1])


def test_two_learners_share_one_backbone(case: Case) -> None:
    shared = Backbone(str(case.folder))
    opposite = replace(
        case,
        name=f"opposite of {case.folder}",
        kind=SDLoRA,
        settings=TRAINED | {"seed": 7},
        tasks=case.tasks[1::-1],
    )
    one, other = case.made(shared), opposite.made(shared)
    one.learn(case.tasks[0])
    other.learn(case.tasks[1])
    one.learn(case.tasks[1])
    other.learn(case.tasks[0])
    assert torch.equal(one.logits(case.asked), case.reference(2)[0])
    assert torch.equal(other.logits(opposite.asked), opposite.reference(2)[0])


def test_a_store_of_another_machine_is_opened_on_the_device_of_this_one(case: Case, tmp_path: Path) -> None:
    learner = case.learned(1)
    learner.settings["device"] = "cuda"  # as if it had been trained there
    learner.save(tmp_path / "store")
    loaded = case.kind.load(tmp_path / "store")
    assert torch.equal(loaded.logits(case.asked), learner.logits(case.asked))
    assert case.kind.load(tmp_path / "store", device="cpu").settings["device"] == "cpu"


def test_settings_may_change_when_a_model_is_loaded(trained: Case, tmp_path: Path) -> None:
    trained.learned(1).save(tmp_path / "store")
    if trained.kind.fixed_settings is not None:
        other: Any = trained.kind.load(tmp_path / "store", epochs=1, head="ridge")
        assert other.learn(trained.tasks[1]).settings["epochs"] == 1
        other.save(tmp_path / "store")
        assert [entry.info["settings"]["epochs"] for entry in other.entries] == [2, 1]
    if trained.kind is SDLoRA:
        sharing = "shared" if trained.made().lora.sharing == "projection" else "projection"
        with pytest.raises(SettingError, match=r"magnitude_sharing = .* cannot become"):
            SDLoRA.load(tmp_path / "store", magnitude_sharing=sharing)
    if trained.kind.fixed_settings is None:
        with pytest.raises(SettingError, match="epochs = 2 there and cannot become 1; train a new model"):
            trained.kind.load(tmp_path / "store", epochs=1)


def test_predictions_do_not_depend_on_the_callers_torch_modes(case: Case, tmp_path: Path) -> None:
    """Loaded and used in inference mode, and used in mixed precision before full precision."""
    learner = case.learned(1)
    learner.save(tmp_path / "store")
    wanted = learner.logits(case.asked)
    with torch.inference_mode():
        served = case.kind.load(tmp_path / "store")
        assert torch.equal(served.logits(case.asked), wanted)
    loaded = case.kind.load(tmp_path / "store")
    with torch.autocast("cpu", torch.bfloat16):
        assert loaded.logits(case.asked).shape == wanted.shape
    assert torch.equal(loaded.logits(case.asked), wanted)


def test_novelty_needs_two_examples_of_a_class(case: Case) -> None:
    task = case.tasks[0].select([0, len(case.tasks[0]) - 1])
    with pytest.warns(DataWarning, match="no new class has two examples"):
        learner = case.made().learn(task)
    assert all(0 < a.probabilities[0] <= 1 for a in learner.predict_topk(case.asked))
    with pytest.raises(LearnerError, match="too few examples for a rejection threshold"):
        learner.predict_topk(case.asked, reject=0.05)


def test_another_learners_store_is_refused(case: Case, tmp_path: Path) -> None:
    case.learned(1).save(tmp_path / "store")
    other = next(kind for _, kind, _ in CASES.values() if kind is not case.kind)
    with pytest.raises(StoreError, match=f"holds a model of '{case.kind.name}', not of '{other.name}'"):
        other.load(tmp_path / "store")
    with pytest.raises(StoreError, match="stage 'task 1' there was learned otherwise; save elsewhere"):
        case.trained(1, seed=5).save(tmp_path / "store")


def test_a_backbone_may_move_but_not_change(case: Case, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    learner = case.learned(1)
    learner.save(tmp_path / "store")
    case.folder.rename(tmp_path / "moved")
    try:
        with pytest.raises(DataError, match="cannot be loaded"):
            case.kind.load(tmp_path / "store")
        found = case.kind.load(tmp_path / "store", backbone=str(tmp_path / "moved"))
        found.learn(case.tasks[1]).save(tmp_path / "store")
    finally:
        (tmp_path / "moved").rename(case.folder)
    assert torch.equal(found.logits(case.asked), case.reference(2)[0])
    with pytest.raises(
        (StoreError, SettingError),
        match=r"a dependency has changed: backbone\.\w+ was|pooling = 'last', which .* has not",
    ):
        case.kind.load(tmp_path / "store", backbone=str(tiny("deit")))
    with pytest.raises(SettingError, match=r"bakbone is not a setting of .*; did you mean 'backbone'"):
        case.kind.load(tmp_path / "store", bakbone="x")


@pytest.mark.parametrize(
    "value", [{"rank": 0}, {"learning_rate": 0}, {"learning_rate": float("nan")}, {"epochs": 1.5}, {"batch_size": -1}]
)
def test_settings_that_cannot_be_are_refused(value: dict[str, Any], trained: Case) -> None:
    if not value.keys() <= trained.made().settings.keys():
        return
    with pytest.raises(SettingError, match=rf"{trained.kind.__name__}: {next(iter(value))} = .* cannot be"):
        trained.made(**value)


def test_an_unknown_setting_offers_the_nearest(trained: Case) -> None:
    with pytest.raises(SettingError, match=r"learning_rat is not a setting of .*; did you mean 'learning_rate'"):
        trained.made(learning_rat=1e-3)


def test_a_device_that_is_not_there_is_one_line(case: Case) -> None:
    with pytest.raises(LearnerError, match="device 'warp' cannot be used"):
        case.made(device="warp")
