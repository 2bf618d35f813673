"""KLDA, SLCA, EASE, CL-LoRA and E²-LoRA: what their equations promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.cl_lora import CLLoRA
from newcomer.classes.methods.e2_lora import E2LoRA
from newcomer.classes.methods.ease import EASE
from newcomer.classes.methods.klda import KLDA
from newcomer.classes.methods.slca import SLCA
from newcomer.data.examples import Examples
from newcomer.errors import LearnerError
from newcomer.export import FORMS
from newcomer.nn.early_exit import skipped
from newcomer.nn.features.class_gaussians import ClassGaussians
from newcomer.nn.heads.alignment import align, normalized
from newcomer.nn.heads.fourier_features import FourierFeatures
from newcomer.nn.heads.subspaces import SubspacePrototypes
from newcomer.nn.lora.input_moments import InputMoments
from newcomer.nn.lora.output_spaces import OutputSpaceLoRA
from newcomer.nn.lora.shared_and_task_lora import SharedAndTaskLoRA

Folder = Callable[[str], Path]
HOW: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "device": "cpu"}


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_products_of_fourier_features_are_the_gaussian_kernel() -> None:
    x, z = torch.randn(20, 3, generator=chance()), torch.randn(20, 3, generator=chance(1))
    fourier = FourierFeatures.draw(3, 40_000, 2.0, chance(2))
    wanted = (-torch.cdist(x, z).square() / (2 * 2.0**2)).exp()
    torch.testing.assert_close(fourier(x) @ fourier(z).T, wanted, rtol=0, atol=0.03)


def test_klda_does_not_depend_on_the_order_of_later_tasks(tiny: Folder, tasks: list[Examples]) -> None:
    one, other = (
        KLDA(str(tiny("vit")), projection_dim=50).learn(tasks[0]).learn(Examples(list(both.inputs), both.labels))
        for both in (tasks[1], tasks[1].select([*reversed(range(len(tasks[1])))]))
    )
    columns = [other.classes.index(name) for name in one.classes]
    a, b = one.logits(tasks[0].inputs), other.logits(tasks[0].inputs)[:, columns]
    torch.testing.assert_close(a.argmax(1), b.argmax(1))
    with pytest.raises(LearnerError, match="not linear in the backbone's features"):
        FORMS["transformers"](one, Path("never"))


def test_gaussians_in_parts_are_those_of_all_examples() -> None:
    x, target = torch.randn(40, 4, generator=chance()), torch.arange(40) % 3
    parts = ClassGaussians.empty(4).with_examples(x[:15], target[:15]).with_examples(x[15:], target[15:])
    for k in range(3):
        own = x[target == k]
        torch.testing.assert_close(parts.mean[k], own.mean(0))
        torch.testing.assert_close(parts.scatter[k] / (len(own) - 1), own.T.cov(), rtol=1e-4, atol=1e-5)
    later = parts.with_examples(x[:2], torch.tensor([3, 4]))
    assert later.task.tolist() == [0, 0, 0, 1, 1]
    assert later.roots().isfinite().all()  # of one example, too


@pytest.mark.parametrize("logit_norm", [0.0, 0.1])
def test_alignment_makes_rows_of_different_tasks_comparable(logit_norm: float) -> None:
    """Rows trained apart have offsets that no task's loss sees."""
    means = 3 * torch.randn(6, 8, generator=chance())
    target = torch.arange(6).repeat_interleave(30)
    x = means[target] + torch.randn(180, 8, generator=chance(1))
    gaussians = ClassGaussians.empty(8).with_examples(x[:90], target[:90]).with_examples(x[90:], target[90:])
    weight, bias = means.clone(), -0.5 * means.square().sum(1)
    bias[:3] -= 40.0

    def accuracy(rows: tuple[Tensor, Tensor]) -> float:
        return float((F.linear(x, *rows).argmax(1) == target).float().mean())

    aligned, loss = align(
        (weight, bias), gaussians, epochs=20, draws=64, learning_rate=0.2, logit_norm=logit_norm, generator=chance(2)
    )
    assert loss < 1.0
    assert accuracy((weight, bias)) < 0.8 < 0.95 < accuracy(aligned)


def test_normalized_logits_have_mean_norm_one_over_the_temperature() -> None:
    logits, task = torch.randn(5, 6, generator=chance()), torch.tensor([0, 0, 1, 1, 1, 2])
    found = normalized(logits, task, 0.1)
    norms = torch.stack([found[:, task == k].norm(dim=1) for k in range(3)])
    torch.testing.assert_close(norms.mean(0), torch.full((5,), 10.0), rtol=1e-4, atol=1e-4)
    assert torch.equal(normalized(logits, task, 0.0), logits)


def spaces(tasks: int, threshold: float = 0.9) -> tuple[OutputSpaceLoRA, nn.Sequential, list[Tensor]]:
    """Two layers after some tasks with random factors, and the inputs of the last task."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6)).requires_grad_(False)
    lora, x = OutputSpaceLoRA(model, ["0", "2"]), torch.zeros(0)
    before: list[Tensor] = []
    for number in range(tasks):
        lora.open(threshold, chance(number))
        for factor in lora.trainable():
            factor.data += 0.3 * torch.randn(factor.shape, generator=chance(10 + number))
        x = torch.randn(30, 5, generator=chance(20 + number))
        moments = InputMoments(model, ["0", "2"])
        with torch.no_grad(), lora.applied(), moments.watched():
            before = [model(x)]
        lora.close(moments.found)
    return lora, model, [x, *before]


@pytest.mark.parametrize("tasks", [1, 2, 4, 12])
def test_closing_a_task_changes_no_output_and_the_size_is_bounded(tasks: int) -> None:
    lora, model, (x, wanted) = spaces(tasks)
    with torch.no_grad(), lora.applied():
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    for p, outputs in enumerate((8, 6)):
        assert lora.up[p].shape == (outputs, outputs)
        assert lora.down[p].shape[0] == outputs
        newest = outputs - outputs * (tasks - 1) // tasks
        assert (lora.before[p] == 0).sum() >= 1
        own = lora.up[p][:, -newest:]
        torch.testing.assert_close(own.T @ own, torch.eye(newest), rtol=0, atol=1e-5)


def test_a_task_begins_where_little_energy_is_lost_and_moves_nothing() -> None:
    """With the whole energy kept, as far as there is space, the new task's update is zero at first."""
    lora, model, (x, wanted) = spaces(1, threshold=1.0)
    lora.open(0.999, chance(5))
    assert all(not down.any() for down in lora.open_down)
    assert [up.shape[1] for up in lora.open_up] >= [4, 3]  # half of the outputs at least
    with torch.no_grad(), lora.applied():
        now = model(x)
    with torch.no_grad(), lora.applied_before():
        assert torch.equal(model(x), now)
    spread = (wanted - wanted.mean(0)).norm()
    assert 0 < (now - wanted).norm() < spread  # half of the directions were given away
    kept = lora.before[0]
    assert kept.max() < 0.999


def test_old_logits_are_distilled(tiny: Folder, tasks: list[Examples]) -> None:
    """λ so large that nothing else counts: old classes' logits on the new examples stay."""
    moved = {}
    for weight in (0.0, 1e3):
        learner = E2LoRA(str(tiny("vit")), kd_weight=weight, alignment_epochs=0, **HOW | {"epochs": 4})
        rows = learner.learn(tasks[0]).loop.linear_head.rows()  # type: ignore[union-attr]
        before = F.linear(learner.features(tasks[1].inputs), *rows).softmax(1)
        learner.learn(tasks[1])
        after = F.linear(learner.features(tasks[1].inputs), *rows).softmax(1)
        moved[weight] = float((after - before).abs().mean())
    assert moved[1e3] < moved[0.0]


@pytest.mark.parametrize(
    "kind", ["vit", "bert", "distilbert", "dinov2", "clip", "siglip", "mpnet", "deberta-v2", "gpt2", "qwen3"]
)
def test_query_key_value_and_the_first_mlp_layer_are_adapted(kind: str, tiny: Folder) -> None:
    backbone = Backbone(str(tiny(kind)))
    assert len(backbone.block_projections) == 2 * len(backbone.projections) == 8
    assert set(backbone.projections) < set(backbone.block_projections)


def test_named_target_modules_are_all_that_is_adapted(tiny: Folder) -> None:
    backbone = Backbone(str(tiny("vit")), target_modules=["o_proj"])
    assert backbone.block_projections == backbone.projections


def test_prototypes_in_a_new_subspace_are_those_of_the_most_similar_new_class() -> None:
    """Two new classes, one in the direction of an old one in its own subspace; far apart, so that the softmax is one-sided."""
    old = torch.tensor([[[1.0, 0.0, 0.0]]])
    prototypes = SubspacePrototypes.empty(1, 3).with_examples(old, torch.tensor([0]), 0)
    new = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 5.0, 0.0]], [[-1.0, 0.0, 0.0], [0.0, 0.0, 5.0]]])
    later = prototypes.with_examples(new, torch.tensor([1, 2]), 1)
    weight = torch.tensor([1.0, -1.0]).softmax(0)
    torch.testing.assert_close(later.mean[0, 1], torch.tensor([0.0, 5 * weight[0], 5 * weight[1]]))
    assert torch.equal(later.mean[1:], new)
    assert later.own.tolist() == [0, 1, 1]
    logits = later.logits(new[:1], alpha=0.1)
    torch.testing.assert_close(logits[0, 1], torch.tensor(1.1))
    torch.testing.assert_close(logits[0, 2], torch.tensor(0.0 - 0.1))


def test_an_adapter_a_task_never_changes_again(tiny: Folder, tasks: list[Examples]) -> None:
    learner = EASE(str(tiny("vit")), rank=2, **HOW | {"learning_rate": 1e-2}).learn(tasks[0])
    first = learner.features(tasks[0].inputs)
    both = learner.learn(tasks[1]).features(tasks[0].inputs)
    assert first.shape[1] == 32
    assert both.shape[1] == 48
    torch.testing.assert_close(both[:, :32], first)
    assert not torch.allclose(both[:, 32:], first[:, 16:], atol=1e-3)
    assert learner.info()["cost"]["passes"] == 3


def test_an_early_exit_is_the_model_without_its_later_blocks(tiny: Folder, tasks: list[Examples]) -> None:
    backbone = Backbone(str(tiny("vit")))
    encoded, model = backbone.encode(tasks[0].inputs), backbone.model
    layers: Any = model.get_submodule("layers")
    with torch.no_grad():
        with skipped([*layers][1:]):
            found = backbone(encoded)
        model.set_submodule("layers", nn.ModuleList([layers[0]]))
        torch.testing.assert_close(found, backbone(encoded))


def shared_and_task() -> tuple[SharedAndTaskLoRA, nn.Sequential, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).requires_grad_(False)
    lora = SharedAndTaskLoRA(model, ["0", "2"], shared=1, rank=2)
    lora.start(chance())
    for number in range(2):
        for factor in lora.open(chance(number)):
            factor.data += 0.3 * torch.randn(factor.shape, generator=chance(10 + number))
        if not number:
            lora.close()
    return lora, model, torch.randn(7, 5, generator=chance(5))


def test_a_task_computes_with_the_shared_and_its_own_factors() -> None:
    lora, model, x = shared_and_task()
    lora.close()
    first: Any = model.get_submodule("0.frozen")
    second: Any = model.get_submodule("2.frozen")
    task = lora.tasks[0]
    hidden = F.linear(x, first.weight + lora.up[0].detach() @ lora.down[0], first.bias).tanh()
    wanted = F.linear(hidden, second.weight + task.weights[0] * task.up[0] @ task.down[0], second.bias)
    with torch.no_grad(), lora.applied(0):
        torch.testing.assert_close(model(x), wanted)
    torch.testing.assert_close(lora.down[0] @ lora.down[0].T, torch.eye(2), rtol=0, atol=1e-5)


def test_gradients_of_distillation_are_reassigned_by_the_old_norms_of_rows() -> None:
    lora, model, x = shared_and_task()
    first: Any = model.get_submodule("0.frozen")
    old = lora._old_up[0]
    with lora.applied_shared(old=False):
        (found,) = torch.autograd.grad(model(x).square().sum(), lora.up[0])
    plain = lora.up[0].detach().clone().requires_grad_()
    hidden = F.linear(x, first.weight + plain @ lora.down[0], first.bias).tanh()
    (wanted,) = torch.autograd.grad(model[2](hidden).square().sum(), plain)
    norms = old.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, wanted * norms / norms.mean(), rtol=1e-4, atol=1e-5)
    with torch.no_grad(), lora.applied_shared(old=True):
        hidden = F.linear(x, first.weight + old @ lora.down[0], first.bias).tanh()
        torch.testing.assert_close(model(x), model[2](hidden))


def test_the_overlap_of_equal_block_weights_is_one() -> None:
    lora, _, _ = shared_and_task()
    assert lora.overlap().item() == pytest.approx(1.0)  # one layer: all vectors of positive numbers are parallel


def test_later_tasks_move_the_shared_factors_and_no_others(tiny: Folder, tasks: list[Examples]) -> None:
    learner = CLLoRA(str(tiny("vit")), rank=2, **HOW | {"learning_rate": 1e-2}).learn(tasks[0])
    adapter: Any = learner.adapter
    shared = [t.detach().clone() for t in adapter.lora.up]
    own = {name: t.clone() for name, t in adapter.lora.tasks[0].tensors().items()}
    learner.learn(tasks[1])
    assert not any(torch.equal(a, b) for a, b in zip(shared, adapter.lora.up, strict=True))
    assert all(torch.equal(t, own[name]) for name, t in adapter.lora.tasks[0].tensors().items())
    assert learner.info()["cost"]["passes"] == 3


@pytest.mark.parametrize("method", [SLCA, E2LoRA])
def test_an_export_answers_the_same(method: Any, tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    learner = method(str(tiny("vit")), **HOW).learn(tasks[0]).learn(tasks[1])
    FORMS["transformers"](learner, tmp_path / "out")
    exported = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        logits = exported(**learner.backbone.encode(tasks[0].inputs)).logits
    torch.testing.assert_close(logits, learner.logits(tasks[0].inputs), rtol=1e-4, atol=1e-4)
