"""Cross-validation of heads on a task's own examples: what calibrates probabilities and novelty scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from newcomer.classes.heads import HeadName, make_head
from newcomer.nn.features.class_statistics import PRINCIPAL_DIRECTIONS, ClassStatistics
from newcomer.nn.features.novelty import Novelty
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.head import Head, Linear, Prior
from newcomer.shapes import Bool, Float, Int, Tensor

FOLDS = 5
NEAREST = 100
"""Most classes among which a head that uses principal directions is evaluated: the task's, and the old ones nearest to them.

Such heads take long to compute, and classes that are far away compete for no example.
"""


@dataclass(frozen=True)
class HeldOut:
    """Held-out examples of a task's new classes, fold by fold."""

    novelty: Float[Tensor, " example"]
    target: Int[Tensor, " example"]
    """Indices into all classes."""
    logits: Mapping[HeadName, tuple[Float[Tensor, "example class"], Int[Tensor, " example"]]]
    """Of each head: logits of the first of these examples, −∞ for a class without examples, and their classes' columns."""
    near: Int[Tensor, " class"]
    """The classes that heads with principal directions have columns for; the others have one for every class."""


def cross_validate(
    old: ClassStatistics,
    features: Float[Tensor, "example width"],
    target: Int[Tensor, " example"],
    trained: Linear,
    shrinkage: float,
    folds: Mapping[HeadName, int],
    prior: Prior = "uniform",
    named: Bool[Tensor, " class"] | None = None,
) -> HeldOut | None:
    """Evaluate heads computed from `old` and four fifths of a task's examples on the rest; None if nothing can be held out.

    `folds`: the heads, each with the number of folds, at most `FOLDS`, that it is evaluated on. `old` are the statistics of the
    known classes; new classes' indices follow theirs. Only examples of new classes are held out: others may have been learned
    before, but for classes that were known by their names alone (`named`). A trained linear head has seen the held-out examples.
    """
    known = len(old.count)
    every, near = torch.arange(max(known, int(target.max()) + 1)), _nearest(old, features, target)
    first = torch.ones(len(every), dtype=torch.bool)
    first[:known] = False if named is None else named
    fold_of, is_new = folds_of(target), first[target]
    # those of all examples: that a fold has fewer of each new class is no imbalance
    counts = F.pad(old.count, (0, len(every) - known)) + torch.bincount(target, minlength=len(every))
    plain = old.without_directions().padded(len(every)).double()
    close = old.at(near[near < known].tolist()).padded(len(near)).double()
    logits: dict[HeadName, list[tuple[Tensor, Tensor]]] = {name: [] for name in folds}
    novelty, held_out = [], []
    for fold in range(FOLDS):
        kept = fold_of != fold
        statistics = plain.joined(ClassStatistics.of(features[kept], target[kept], len(every)))
        rows = ((fold_of == fold) & is_new & (statistics.count > 0)[target]).nonzero()[:, 0]
        if not len(rows):
            continue
        x, nearby = features[rows].double(), None
        for name in (name for name in folds if fold < folds[name]):
            head, classes = make_head(name, shrinkage, prior), every
            if head.uses_directions:
                rank, classes = old.directions.shape[1], near
                nearby = nearby or close.joined(
                    ClassStatistics.of(features[kept], torch.searchsorted(near, target[kept]), len(near), rank)
                )
            there = nearby if nearby and head.uses_directions else statistics
            found = _logits(head, there, classes, trained, x, counts)
            logits[name].append((found, torch.searchsorted(classes, target[rows])))
        novelty.append(Novelty.of(statistics.at(_present(statistics)), shrinkage)(x))
        held_out.append(rows)
    if not held_out:
        return None
    joined = {
        name: (torch.cat([a for a, _ in found]), torch.cat([b for _, b in found]))
        for name, found in logits.items()
        if found
    }
    return HeldOut(torch.cat(novelty), target[torch.cat(held_out)], joined, near)


def held_out_losses(
    features: Float[Tensor, "example width"],
    target: Int[Tensor, " example"],
    shrinkage: float,
    heads: Sequence[HeadName],
    prior: Prior = "uniform",
) -> Float[Tensor, " held_out"]:
    """Cross entropy of each example of one fold, by the best of these heads, which are computed from the other folds.

    Each head has the temperature that fits these examples. Classes of a single example are left out.
    """
    several = torch.bincount(target)[target] > 1
    features, target = features[several].double(), torch.unique(target[several], return_inverse=True)[1]
    held_out, losses = folds_of(target) == 0, []
    classes = int(target.max()) + 1
    kept = ClassStatistics.of(features[~held_out], target[~held_out], classes, PRINCIPAL_DIRECTIONS)
    untrained = features.new_zeros(classes, features.shape[1])
    for head in (make_head(name, shrinkage, prior) for name in heads):
        found = _logits(head, kept, torch.arange(classes), (untrained, untrained[:, 0]), features[held_out], kept.count)
        found = found / temperature(found, target[held_out])
        losses.append(F.cross_entropy(found, target[held_out], reduction="none"))
    return min(losses, key=lambda loss: loss.mean().item())


def _logits(
    head: Head,
    statistics: ClassStatistics,
    classes: Int[Tensor, " class"],
    trained: Linear,
    x: Float[Tensor, "row width"],
    counts: Float[Tensor, " class"],
) -> Float[Tensor, "row class"]:
    """Logits of these classes, whose statistics these are; −∞ for those without examples. `counts` are those of all classes."""
    present = _present(statistics)
    there, own = statistics.at(present), classes[present]
    weight, bias = head.fold(there, (trained[0][own], trained[1][own]), counts[own])
    found = x.new_full((len(x), len(classes)), float("-inf"))
    found[:, present] = head.terms(there, x) @ weight.T + bias
    return found


def _present(statistics: ClassStatistics) -> list[int]:
    """Classes with examples."""
    found: list[int] = (statistics.count > 0).nonzero()[:, 0].tolist()
    return found


def _nearest(
    old: ClassStatistics, features: Float[Tensor, "example width"], target: Int[Tensor, " example"]
) -> Int[Tensor, " class"]:
    """The task's classes and those with the nearest means, `NEAREST` in all or the task's, in order."""
    own, known = torch.unique(target), len(old.count)
    classes = max(known, int(own[-1]) + 1)
    if classes <= NEAREST:
        return torch.arange(classes)
    means = ClassStatistics.of(features, torch.searchsorted(own, target), len(own)).mean
    distance = torch.cdist(old.mean.to(means), means).min(1).values
    distance[own[own < known]] = float("inf")  # they are in anyway
    others = distance.argsort()[: max(0, min(NEAREST - len(own), known - int((own < known).sum())))]
    return torch.cat([own, others]).sort().values


def folds_of(target: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Fold of each example; a class's examples go to the folds in turn."""
    fold = torch.zeros_like(target)
    for k in torch.unique(target):
        rows = (target == k).nonzero()[:, 0]
        fold[rows] = torch.arange(len(rows)) % FOLDS
    return fold
