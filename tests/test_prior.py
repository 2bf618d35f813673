"""Classes of few examples beside classes of many: priors of heads and of the training, calibration, rejection."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.heads import HeadName, make_head
from newcomer.classes.methods.e2_lora import E2LoRA
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.klda import KLDA
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.slca import SLCA
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning, SettingError
from newcomer.estimator import NewcomerClassifier
from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.features.temperature import balanced_temperature, temperature, temperature_of_means
from newcomer.nn.heads.head import Prior
from newcomer.nn.heads.lda import LDA

WIDTH = 20
HEADS: list[HeadName] = ["prototypes", "ridge", "lda", "gaussian", "kernel"]
MANY, FEW = 150, 2


def drawn(seed: int, counts: list[int], apart: float = 3.0) -> tuple[Tensor, Tensor]:
    """Gaussian classes of covariance one, each pair of means `apart`; so many examples of each."""
    chance = torch.Generator().manual_seed(seed)
    means = apart / math.sqrt(2) * torch.eye(len(counts), WIDTH)
    target = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return means[target] + torch.randn(len(target), WIDTH, generator=chance), target


def learned(seed: int, counts: list[int], head: HeadName, prior: Prior = "uniform") -> tuple[ClassMemory, Any]:
    """A memory of such classes, and the function that gives calibrated logits of a head."""
    x, target = drawn(seed, counts)
    trained = torch.zeros(len(counts), WIDTH), torch.zeros(len(counts))
    memory, _ = ClassMemory.empty(WIDTH).with_task(x, target, head, 0.3, trained, calibrated=[head], prior=prior)
    weight, bias = memory.classifier(head, 0.3, prior, trained)
    return memory, lambda x: make_head(head, 0.3).terms(memory.statistics, x).float() @ weight.T + bias


def recalls(head: HeadName, prior: Prior, seeds: int = 12) -> tuple[float, float]:
    """Of the class of many and of the class of few examples, in the mean over draws."""
    asked, wanted = drawn(1000, [200, 200])
    found = [learned(seed, [MANY, FEW], head, prior)[1](asked).argmax(1) == wanted for seed in range(seeds)]
    right = torch.stack(found).double().mean(0)
    return right[wanted == 0].mean().item(), right[wanted == 1].mean().item()


@pytest.mark.parametrize("head", ["lda", "gaussian"])
def test_a_class_of_few_examples_is_recognised_as_often_as_one_of_many(head: HeadName) -> None:
    """Without the allowance for the error of its mean it is not."""
    many, few = recalls(head, "uniform")
    assert abs(many - few) < 0.12
    plain = []
    asked, wanted = drawn(1000, [200, 200])
    for seed in range(12):
        x, target = drawn(seed, [MANY, FEW])
        statistics = ClassStatistics.of(x, target, 2)
        nothing = torch.zeros(2, WIDTH), torch.zeros(2)
        weight, bias = LDA(0.3).fold(statistics, nothing, torch.ones(2))
        plain.append(((asked.double() @ weight.T + bias).argmax(1) == wanted)[wanted == 1].double().mean().item())
    assert np.mean(plain) < few - 0.2


def test_the_allowance_is_what_the_error_of_a_mean_takes_from_a_logit() -> None:
    """In the mean over draws of a class's mean, the logits of a fresh example are those of the true mean."""
    chance = torch.Generator().manual_seed(0)
    x, target = drawn(0, [2000, 2000])
    large = ClassStatistics.of(x, target, 2)
    nothing = torch.zeros(2, WIDTH), torch.zeros(2)
    fresh = large.mean[1] + torch.randn(400, WIDTH, generator=chance, dtype=torch.float64)

    def margin(mean: Tensor, n: float) -> float:
        count = torch.tensor([2000.0, n], dtype=torch.float64)
        statistics = ClassStatistics(**(vars(large) | {"mean": torch.stack([large.mean[0], mean]), "count": count}))
        weight, bias = LDA(0.0).fold(statistics, nothing)
        logits = fresh @ weight.T + bias
        return (logits[:, 1] - logits[:, 0]).mean().item()

    noise = torch.randn(400, WIDTH, generator=chance, dtype=torch.float64) / math.sqrt(4)
    found = np.mean([margin(large.mean[1] + e, 4) for e in noise])
    assert found == pytest.approx(margin(large.mean[1], 2000), abs=0.15)
    assert LDA(0.0).allowance(large, torch.tensor([2000.0, 4.0]))[1].item() > 2  # what would be missing: 20/8


def test_a_uniform_ridge_gives_a_small_class_more_than_an_empirical_one() -> None:
    uniform, empirical = recalls("ridge", "uniform"), recalls("ridge", "empirical")
    assert uniform[1] > empirical[1] + 0.1
    assert sum(uniform) > sum(empirical) + 0.05


@pytest.mark.parametrize("head", HEADS)
def test_priors_agree_where_classes_have_as_many_examples(head: HeadName) -> None:
    asked, _ = drawn(1, [9, 9, 9])
    one, other = (learned(0, [20, 20, 20], head, prior)[1](asked).softmax(1) for prior in ("uniform", "empirical"))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("head", ["prototypes", "lda", "gaussian", "kernel"])
def test_the_empirical_prior_adds_the_logarithm_of_the_shares(head: HeadName) -> None:
    asked, _ = drawn(1, [5, 5])
    one, other = (learned(0, [60, 6], head, prior)[1](asked) for prior in ("uniform", "empirical"))
    change = (other - one)[:, 0] - (other - one)[:, 1]
    torch.testing.assert_close(change, torch.full_like(change, math.log(10)))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("few", [1, 2])
def test_no_certainty_comes_from_one_or_two_examples(head: HeadName, few: int) -> None:
    """A user saw pictures of the small class called the large one with .95 confidence."""
    asked, wanted = drawn(1000, [200, 200])
    said = torch.cat([learned(seed, [MANY, few], head)[1](asked).softmax(1) for seed in range(8)])
    wrong = (said.argmax(1) == 0) & (wanted.repeat(8) == 1)
    assert (said[wrong].max(1).values > 0.95).double().mean() < 0.1
    assert said.max(1).values.mean() < 0.95


@pytest.mark.parametrize("head", HEADS)
def test_one_example_of_each_class_gives_half_of_a_belief(head: HeadName) -> None:
    x, _ = drawn(0, [1] * 5)
    said = learned(0, [1] * 5, head)[1](x).softmax(1)
    assert said.argmax(1).tolist() == [0, 1, 2, 3, 4]
    assert said.max(1).values.mean().item() == pytest.approx(0.5 + 0.5 / 5, abs=0.07)


def test_a_balanced_temperature_weighs_classes_and_counts_the_smallest_most() -> None:
    chance = torch.Generator().manual_seed(0)
    target = torch.arange(2).repeat_interleave(torch.tensor([50, 10]))
    logits = torch.nn.functional.one_hot(target, 2) + torch.randn(60, 2, generator=chance)
    found, effective = balanced_temperature(logits, target)
    assert effective == pytest.approx(4 / (1 / 50 + 1 / 10))
    # examples of the smaller class five times, and the doubt of so many examples as there are in effect
    repeated = torch.cat([logits[:50], logits[50:].repeat(5, 1)]), torch.cat([target[:50], target[50:].repeat(5)])
    doubt = 1 / (effective + 1)

    def loss(t: float) -> float:
        return torch.nn.functional.cross_entropy(repeated[0] / t, repeated[1], label_smoothing=doubt).item()

    assert loss(found) <= min(loss(found * 1.1), loss(found / 1.1))
    assert balanced_temperature(logits[:20], target[:20] + (torch.arange(20) % 2)) == (
        temperature(logits[:20], torch.arange(20) % 2),
        20.0,
    )
    assert balanced_temperature(logits[:20], target[:20], without=1)[1] == pytest.approx(4 / (1 / 20 + 1))


def test_means_are_believed_by_their_number_of_examples() -> None:
    logits = torch.eye(4) * 10
    for count, belief in ((1, 1 / 2), (3, 3 / 4)):
        said = (logits / temperature_of_means(logits, torch.full((4,), float(count)))).softmax(1)
        assert said.diagonal().mean().item() == pytest.approx(belief + (1 - belief) / 4, abs=1e-3)


def test_a_threshold_from_few_examples_is_the_greatest_score_and_says_so(tiny: Callable[[str], Path]) -> None:
    memory, _ = learned(0, [6, 6], "lda")
    assert memory.held_out_novelty == 12
    assert memory.threshold(0.05) == memory.novelty_quantiles.max()
    assert memory.threshold(0.5) < memory.novelty_quantiles.max()
    model = FrozenBackbone(str(tiny("vit"))).learn(Examples([picture(i) for i in range(6)], ["a", "b"] * 3))
    with pytest.warns(DataWarning, match="reject = 0.05: that takes 19 examples of known classes, and .* as good as 6"):
        model.predict_topk(picture(0), reject=0.05)


def picture(seed: int, shade: int = 0) -> np.ndarray[Any, Any]:
    return np.clip(np.random.default_rng(seed).integers(0, 200, (8, 8, 3)) + shade, 0, 255).astype(np.uint8)


def task(counts: dict[str, int], seed: int = 0) -> Examples:
    """Pictures of classes that differ by brightness."""
    shades = {name: 30 * n for n, name in enumerate(counts)}
    made = [
        (picture(seed + 1000 * n + i, shades[name]), name) for n, name in enumerate(counts) for i in range(counts[name])
    ]
    return Examples([x for x, _ in made], [name for _, name in made])


SETTINGS: dict[str, Any] = {
    "head": "linear",
    "head_init": "zero",
    "epochs": 6,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "rank": 2,
}


def test_the_loss_owes_small_classes_nothing(tiny: Callable[[str], Path]) -> None:
    """A trained linear head: a small class's logit is higher where the loss is adjusted; where nothing is, bits are the same."""
    asked = list(task({"a": 6, "b": 6}, seed=500).inputs)
    margins: dict[str, Tensor] = {}
    bits: dict[str, Tensor] = {}
    for prior in ("uniform", "empirical"):
        for counts, found in (({"a": 30, "b": 2}, margins), ({"a": 8, "b": 8}, bits)):
            logits = SDLoRA(str(tiny("vit")), prior=prior, **SETTINGS).learn(task(counts)).logits(asked)
            found[prior] = logits[:, 1] - logits[:, 0]
    assert (margins["uniform"] > margins["empirical"]).all()
    assert torch.equal(bits["uniform"], bits["empirical"])


@pytest.mark.parametrize("kind", [KLDA, RanPAC])
def test_other_classifiers_have_the_prior(kind: Any, tiny: Callable[[str], Path]) -> None:
    asked = list(task({"a": 6, "b": 6}, seed=500).inputs)
    few = [
        kind(str(tiny("vit")), projection_dim=40, prior=prior)
        .learn(task({"a": 30, "b": 3}))
        .predict_proba(asked)[:, 1]
        .mean()
        for prior in ("uniform", "empirical")
    ]
    assert few[0] > few[1] + 0.1


@pytest.mark.parametrize("kind", [SLCA, E2LoRA])
def test_a_head_that_is_aligned_on_as_many_draws_a_class_has_no_empirical_prior(
    kind: Any, tiny: Callable[[str], Path]
) -> None:
    with pytest.raises(
        SettingError, match="prior = 'empirical', but the alignment draws as many features of every class"
    ):
        kind(str(tiny("vit")), prior="empirical")
    assert kind(str(tiny("vit")), prior="empirical", head="lda").classifier.settings.prior == "empirical"


def test_the_estimator_has_the_prior() -> None:
    x, y = drawn(0, [40, 4])
    found = [
        NewcomerClassifier(prior=prior).fit(x.numpy(), y.numpy()).predict_proba(x.numpy())
        for prior in ("uniform", "empirical")
    ]
    odds = [np.log(p[:, 0] / p[:, 1]) for p in found]
    np.testing.assert_allclose(odds[1] - odds[0], math.log(10), atol=1e-4)
    with pytest.raises(SettingError, match="prior"):
        NewcomerClassifier(prior="flat").fit(x.numpy(), y.numpy())  # type: ignore[arg-type]
