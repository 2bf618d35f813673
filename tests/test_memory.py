"""The class memory: statistics, calibrated temperatures and novelty thresholds without stored examples."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newcomer.classes import cross_validation
from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.cross_validation import FOLDS
from newcomer.classes.heads import HEADS, HeadName, make_head
from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.features.novelty import Novelty
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.head import Linear

WIDTH = 6
READING: list[HeadName] = ["prototypes", "ridge", "lda", "gaussian", "kernel"]


def world(seed: int, classes: int, each: int, apart: float = 2.0) -> tuple[Tensor, Tensor]:
    """Gaussian classes of covariance one, their means `apart` from the middle."""
    draw = torch.Generator().manual_seed(seed)
    means = apart * F.normalize(torch.randn(classes, WIDTH, generator=draw), dim=1)
    target = torch.arange(classes).repeat_interleave(each)
    return means[target] + torch.randn(len(target), WIDTH, generator=draw), target


def rows(classes: int) -> Linear:
    return torch.zeros(classes, WIDTH), torch.zeros(classes)


def trained(x: Tensor, target: Tensor, head: HeadName = "lda") -> ClassMemory:
    return ClassMemory.empty(WIDTH).with_task(x, target, head, 0.1, rows(int(target.max()) + 1))[0]


def answers(memory: ClassMemory, head: HeadName, x: Tensor) -> Tensor:
    """This head's logits of features, before any temperature."""
    reader = make_head(head, 0.1)
    weight, bias = memory.fold(reader, rows(len(memory.novelty_quantiles)))
    terms = reader.terms(memory.statistics, x)
    return F.linear(terms, weight.to(terms), bias.to(terms))


def halves(seed: int, classes: int, each: int, apart: float = 2.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Examples to learn from and others of the same classes."""
    x, target = world(seed, classes, 2 * each, apart)
    learned = torch.arange(len(x)) % 2 == 0
    return x[learned], target[learned], x[~learned], target[~learned]


@pytest.mark.parametrize("head", READING)
@pytest.mark.parametrize("apart", [1.0, 3.0])
def test_probabilities_are_calibrated(head: HeadName, apart: float) -> None:
    """On examples never seen, the mean of the best probability is the share that is right."""
    x, target, asked, wanted = halves(0, classes=5, each=200, apart=apart)
    memory = trained(x, target, head)
    said = (answers(memory, head, asked) / memory.temperature(head)).softmax(1).max(1)
    right = (said.indices == wanted).double().mean().item()
    assert said.values.mean().item() == pytest.approx(right, abs=0.06)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_threshold_rejects_the_requested_share_of_known_inputs(share: float) -> None:
    x, target, asked, _ = halves(1, classes=5, each=300)
    memory = trained(x, target)
    novelty = Novelty.of(memory.statistics.double(), 0.1)(asked.double())
    refused = (novelty > memory.threshold(share)).double().mean().item()
    assert refused == pytest.approx(share, abs=0.03)


def test_unknown_inputs_are_rejected_more_often_than_known_ones() -> None:
    x, target = world(2, classes=8, each=200, apart=9.0)
    known = target < 5
    memory = trained(x[known], target[known])
    novelty = Novelty.of(memory.statistics.double(), 0.1)(x.double())
    refused = novelty > memory.threshold(0.05)
    assert refused[~known].double().mean() > 0.9
    assert refused[known].double().mean() < 0.08


def test_novelty_equals_its_formula() -> None:
    x, target = world(3, classes=3, each=20)
    statistics = ClassStatistics.of(x, target, 3)
    within, total = statistics.scatter / (len(x) - 3), torch.cov(x.double().T, correction=0)
    found = Novelty.of(statistics, 0.0)(x.double())
    for row, value in zip(x.double(), found, strict=True):
        near = min((row - mean) @ torch.linalg.solve(within, row - mean) for mean in statistics.mean)
        middle = row - statistics.centre
        assert value == pytest.approx(float(near - middle @ torch.linalg.solve(total, middle)))


def test_statistics_of_two_tasks_equal_those_of_one() -> None:
    x, target = world(4, classes=4, each=10)
    first = target < 2
    memory, _ = trained(x[first], target[first]).with_task(x[~first], target[~first], "lda", 0.1, rows(4))
    together = trained(x, target)
    for key in ("count", "mean", "scatter"):
        torch.testing.assert_close(
            getattr(memory.statistics, key), getattr(together.statistics, key), atol=1e-4, rtol=1e-4
        )
    assert memory.held_out_count[HEADS.index("lda")] == together.held_out_count[HEADS.index("lda")] == len(x)


@pytest.mark.parametrize("head", READING)
def test_the_held_out_score_is_near_that_of_new_examples(head: HeadName) -> None:
    x, target, asked, wanted = halves(5, classes=5, each=100)
    memory, held_out = ClassMemory.empty(WIDTH).with_task(x, target, head, 0.1, rows(5))
    right = (answers(memory, head, asked).argmax(1) == wanted).double().mean().item()
    assert held_out is not None
    assert held_out.accuracy == pytest.approx(right, abs=0.06)


@pytest.mark.parametrize("each", [1, 2, FOLDS + 1])
def test_few_examples_are_no_error(each: int) -> None:
    x, target = world(6, classes=3, each=each)
    memory = trained(x, target)
    assert memory.threshold(0.05) == (math.inf if each == 1 else memory.threshold(0.05))
    assert 0 < memory.temperature("lda") < math.inf
    assert memory.with_task(x[:1], target[:1], "lda", 0.1, rows(3))[0].statistics.count[0] == each + 1


def test_a_new_class_of_one_example_beside_known_ones() -> None:
    x, target = world(7, classes=3, each=5)
    known = target < 2
    memory, held_out = trained(x[known], target[known]).with_task(
        x[~known][:1], target[~known][:1], "lda", 0.1, rows(3)
    )
    assert held_out is None
    assert memory.statistics.count.tolist() == [5, 5, 1]
    assert memory.threshold(0.05) < math.inf  # the others' own


def test_written_and_read_back_is_bit_identical() -> None:
    memory = trained(*world(8, classes=3, each=6))
    tensors, again = memory.tensors(), ClassMemory.from_tensors(memory.tensors())
    assert tensors.keys() == again.tensors().keys()
    assert all(torch.equal(t.nan_to_num(-1), again.tensors()[key].nan_to_num(-1)) for key, t in tensors.items())


def test_a_store_from_before_a_head_came_is_read_without_its_temperature() -> None:
    memory = trained(*world(8, classes=3, each=6), "lda")
    tensors = {
        name: t[:-1] if name.endswith(("temperatures", "held_out_count")) else t for name, t in memory.tensors().items()
    }
    again = ClassMemory.from_tensors(tensors)
    assert [again.temperature(head) for head in HEADS[:-1]] == [memory.temperature(head) for head in HEADS[:-1]]
    assert again.temperature(HEADS[-1]) == 1.0 != memory.temperature(HEADS[-1])


@pytest.mark.parametrize("head", ["prototypes", "ridge", "lda"])
def test_a_head_chosen_later_is_calibrated_as_if_it_had_been_chosen_before(head: HeadName) -> None:
    x, target = world(9, classes=4, each=30)
    assert trained(x, target, "lda").temperature(head) == trained(x, target, head).temperature(head)


def test_a_kernel_chosen_later_is_calibrated_by_fewer_examples() -> None:
    x, target = world(9, classes=4, each=30)
    elsewhere, here = trained(x, target, "lda"), trained(x, target, "kernel")
    assert elsewhere.temperature("kernel") == pytest.approx(here.temperature("kernel"), rel=0.3)
    place = HEADS.index("kernel")
    assert elsewhere.held_out_count[place] == here.held_out_count[place] / FOLDS


def test_among_many_classes_a_kernel_is_calibrated_by_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those far away compete for nothing: the temperature and the held-out accuracy are near those among all."""
    x, target = world(12, classes=40, each=20, apart=6.0)
    known, new = target < 36, target >= 36
    memory, found = trained(x[known], target[known], "kernel"), {}
    for most in (100, 12):
        monkeypatch.setattr(cross_validation, "NEAREST", most)
        found[most] = memory.with_task(x[new], target[new], "kernel", 0.1, rows(40))
    (every, every_right), (near, near_right) = found[100], found[12]
    assert near.temperature("kernel") == pytest.approx(every.temperature("kernel"), rel=0.1)
    assert near_right is not None
    assert every_right is not None
    assert near_right.accuracy == pytest.approx(every_right.accuracy, abs=0.06)
    assert near.temperature("lda") == every.temperature("lda")
    assert torch.equal(near.statistics.mean, every.statistics.mean)


def test_only_the_heads_that_are_named_are_calibrated() -> None:
    x, target = world(9, classes=4, each=30)
    memory, held_out = ClassMemory.empty(WIDTH).with_task(x, target, "lda", 0.1, rows(4), calibrated=["lda"])
    assert memory.temperature("lda") == trained(x, target, "lda").temperature("lda")
    assert held_out is not None
    assert all(memory.temperature(head) == 1.0 for head in HEADS if head != "lda")


def test_draws_have_calibrated_a_gaussian_that_is_chosen_later() -> None:
    x, target = world(9, classes=4, each=30)
    assert trained(x, target, "lda").temperature("gaussian") == 1.0
    found = trained(x, target, "gaussian").temperature("gaussian")
    assert found != 1.0
    assert 0.2 < found < 5


def ring(seed: int) -> tuple[Tensor, Tensor]:
    """Two classes that no line tells apart: the second is around the first, on both sides."""
    x, _ = world(seed, 1, 120, apart=0.0)
    target = torch.arange(120) % 2
    x[:, 0] += torch.where(target == 1, 6.0, 0.0) * (-1.0) ** (torch.arange(120) // 2)
    return x, target


def test_the_best_head_is_that_of_the_examples() -> None:
    """Gaussians of one covariance are read by a line, a class around another by a kernel; judging changes nothing else."""
    x, target = world(9, 4, 30, 1.0)
    flat = x * torch.tensor([10.0, 1, 1, 1, 1, 0.1]), target
    line, curve = (ClassMemory.empty(WIDTH).with_judged_heads(x, target, 0.1) for x, target in (flat, ring(9)))
    assert line.best_head() in ("lda", "gaussian")
    assert curve.best_head() == "kernel"
    assert curve.judged[HEADS.index("kernel"), 1] == 120
    assert curve.judged[HEADS.index("linear")].tolist() == [0, 0]  # it has seen the held-out examples
    assert curve.classes == 0
    assert curve.temperatures.isnan().all()


def test_without_examples_to_judge_by_the_head_is_the_default() -> None:
    memory = ClassMemory.empty(WIDTH)
    assert memory.best_head() == memory.with_judged_heads(*world(9, 3, 1), 0.1).best_head() == "gaussian"


def test_among_many_classes_all_heads_are_judged_among_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "NEAREST", 12)
    x, target = world(12, classes=40, each=20, apart=6.0)
    known = target < 36
    memory = trained(x[known], target[known]).with_judged_heads(x[~known], target[~known], 0.1)
    loss, count = memory.judged[HEADS.index("prototypes") :].T
    assert count.tolist() == [80] * 5
    assert loss.isfinite().all()
    assert loss[HEADS.index("lda") - 1] < 80 * math.log(12)


def test_judgements_of_several_tasks_add_up() -> None:
    x, target = world(9, 4, 30)
    first = target < 2
    memory = trained(x[first], target[first]).with_judged_heads(x[~first], target[~first], 0.1)
    again = memory.with_judged_heads(x[~first], target[~first], 0.1)
    assert torch.equal(again.judged, 2 * memory.judged)
    assert torch.equal(again.judged, ClassMemory.from_tensors(again.tensors()).judged)


def test_the_same_examples_again_leave_what_was_calibrated_as_it_was() -> None:
    x, target = world(10, classes=3, each=10)
    memory = trained(x, target)
    again, held_out = memory.with_task(x, target, "lda", 0.1, rows(3))
    assert held_out is None
    assert again.temperature("lda") == memory.temperature("lda")
    assert torch.equal(again.novelty_quantiles, memory.novelty_quantiles)


def test_a_single_class_leaves_the_temperature() -> None:
    x, target = world(11, classes=1, each=10)
    assert trained(x, target).held_out_count.tolist() == [0] * len(HEADS)


def test_the_temperature_is_found_at_any_offset_of_the_logits() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 4, generator=draw, dtype=torch.float64) * 2
    target = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    for scale in (1e-3, 1.0, 100.0):
        assert temperature(logits * scale, target) == pytest.approx(scale, rel=0.1)
    assert temperature(logits[:0], target[:0]) == 1.0
    assert temperature(logits[:, :1], target * 0) == 1.0
