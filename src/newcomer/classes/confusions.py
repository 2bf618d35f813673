"""Confusions of a model's classes: what was predicted for held-out examples."""

from dataclasses import dataclass

import torch

from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class HeldOutPredictions:
    """Classes of held-out examples, and those predicted, as indices into all classes."""

    target: Int[Tensor, " example"]
    predicted: Int[Tensor, " example"]

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.target).double().mean())


@dataclass(frozen=True)
class Confusions:
    """Numbers of held-out examples by class and predicted class.

    A class's examples are those that it was learned from first: no class that came later is predicted for them. What was trained on
    the task, a backbone or a linear head, has seen them, and is right more often than on others.
    """

    counts: Int[Tensor, "pair 3"]
    """Class, predicted class (−1: one that is no longer known), number of examples."""

    @classmethod
    def none(cls) -> "Confusions":
        return cls(torch.zeros(0, 3, dtype=torch.long))

    def with_predictions(self, held_out: HeldOutPredictions) -> "Confusions":
        """With these examples."""
        pairs, number = torch.unique(
            torch.stack([held_out.target, held_out.predicted], dim=1), dim=0, return_counts=True
        )
        return Confusions(torch.cat([self.counts, torch.cat([pairs, number[:, None]], dim=1)]))

    def at(self, classes: list[int]) -> "Confusions":
        """Those of examples of these classes, in this order.

        >>> Confusions(torch.tensor([[0, 0, 9], [0, 2, 1], [2, 1, 1], [2, 2, 8]])).at([2, 0]).counts.tolist()
        [[1, 1, 9], [1, 0, 1], [0, -1, 1], [0, 0, 8]]
        """
        size = max([-1, *classes, *self.counts[:, :2].flatten().tolist()]) + 1
        index = torch.full((size + 1,), -1)  # the last one is that of -1
        index[classes] = torch.arange(len(classes))
        moved = torch.cat([index[self.counts[:, :2]], self.counts[:, 2:]], dim=1)
        return Confusions(moved[moved[:, 0] >= 0])

    @property
    def measured(self) -> Int[Tensor, " class"]:
        """Classes with held-out examples."""
        found: Tensor = torch.unique(self.counts[:, 0])
        return found

    def most_confused(self, count: int) -> list[int]:
        """At most `count` classes: those with most wrong predictions, of them or by them; in order.

        >>> Confusions(torch.tensor([[0, 0, 9], [0, 2, 1], [1, 1, 9], [2, 2, 9]])).most_confused(2)
        [0, 2]
        """
        wrong = self.counts[self.counts[:, 0] != self.counts[:, 1]]
        total = torch.zeros(int(self.counts[:, :2].max()) + 1 if len(self.counts) else 0, dtype=torch.long)
        for column in (0, 1):
            known = wrong[wrong[:, column] >= 0]
            total.index_add_(0, known[:, column], known[:, 2])
        present = self.measured
        found: list[int] = present[total[present].argsort(descending=True, stable=True)[:count]].sort().values.tolist()
        return found

    def shares(self, classes: list[int]) -> Float[Tensor, "class class"]:
        """Confusion matrix of these classes: the share of all held-out examples of each (row) with each predicted class (column).

        >>> Confusions(torch.tensor([[0, 0, 3], [0, 2, 1], [2, 2, 2]])).shares([0, 2]).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
        """
        own = self.at(classes).counts
        own = own[own[:, 1] >= 0]
        matrix = torch.zeros(len(classes), len(classes)).index_put_(
            (own[:, 0], own[:, 1]), own[:, 2].float(), accumulate=True
        )
        examples = [int(self.counts[self.counts[:, 0] == k, 2].sum()) for k in classes]
        return matrix / torch.tensor(examples).clamp(min=1)[:, None]
