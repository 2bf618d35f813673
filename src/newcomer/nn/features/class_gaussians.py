"""A Gaussian of each class's features, with a full covariance of its own."""

from dataclasses import dataclass

import torch

from newcomer.shapes import Float, Int, Tensor

JITTER = 1e-4
"""Added to covariances, in units of the mean variance of a feature: without it those of few examples are singular."""


@dataclass(frozen=True)
class ClassGaussians:
    """Count, mean and scatter Σ (x − μ)(x − μ)ᵀ of each class, and the number of the task that brought it."""

    count: Float[Tensor, " class"]
    mean: Float[Tensor, "class width"]
    scatter: Float[Tensor, "class width width"]
    task: Int[Tensor, " class"]

    @classmethod
    def empty(cls, width: int) -> "ClassGaussians":
        """Of no class."""
        return cls(
            torch.zeros(0), torch.zeros(0, width), torch.zeros(0, width, width), torch.zeros(0, dtype=torch.long)
        )

    def with_examples(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> "ClassGaussians":
        """With these examples added; classes beyond the known ones are of one new task. Computed in float64, kept in float32."""
        known = len(self.count)
        new = max(0, int(target.max()) + 1 - known)
        number = int(self.task.max()) + 1 if known else 0
        count, mean, scatter = (
            torch.cat([part, part.new_zeros(new, *part.shape[1:])]) for part in (self.count, self.mean, self.scatter)
        )
        for k in torch.unique(target).tolist():
            x = features[target == k].double()
            own, old = len(x), float(count[k])
            offset = x.mean(0) - mean[k].double()
            centred = x - x.mean(0)
            between = old * own / (old + own) * torch.outer(offset, offset)
            scatter[k] = (scatter[k].double() + centred.T @ centred + between).float()
            mean[k] = (mean[k].double() + own / (old + own) * offset).float()
            count[k] += own
        return ClassGaussians(count, mean, scatter, torch.cat([self.task, torch.full((new,), number)]))

    def at(self, classes: list[int]) -> "ClassGaussians":
        """Restricted to these classes."""
        return ClassGaussians(self.count[classes], self.mean[classes], self.scatter[classes], self.task[classes])

    def roots(self) -> Float[Tensor, "class width width"]:
        """Cholesky factors of the covariances, in float32."""
        covariance = self.scatter.double() / (self.count - 1).clamp(min=1)[:, None, None]
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        jitter = (JITTER * diagonal.mean()).clamp(min=1e-9).expand_as(diagonal)
        found: Tensor = torch.linalg.cholesky(covariance + torch.diag_embed(jitter))
        return found.float()
