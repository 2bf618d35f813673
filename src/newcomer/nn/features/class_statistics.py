"""Sufficient statistics of classes: counts, means, pooled scatter, principal directions of each class."""

from dataclasses import dataclass, replace

import torch

from newcomer.shapes import Float, Int, Tensor

PRINCIPAL_DIRECTIONS = 8
"""Principal directions that are kept of each class's scatter."""
PER_CLASS = ("count", "mean", "directions", "residual")
"""Statistics with a row for each class."""


@dataclass(frozen=True)
class ClassStatistics:
    """Count and mean of each class's features, their scatter Σ (x − μ_class)(x − μ_class)ᵀ pooled over all classes, and the
    principal directions of each class's scatter: Σ_i s_i s_iᵀ over the rows s of `directions`, and the residual of its trace.

    All that heads need; no example is stored. Computed in float64.
    """

    count: Float[Tensor, " class"]
    mean: Float[Tensor, "class width"]
    scatter: Float[Tensor, "width width"]
    degrees_of_freedom: Float[Tensor, ""]
    """Degrees of freedom of the scatter: examples minus classes, removed classes included."""
    directions: Float[Tensor, "class rank width"]
    residual: Float[Tensor, " class"]

    @classmethod
    def of(
        cls, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"], classes: int, rank: int = 0
    ) -> "ClassStatistics":
        """Statistics of these features; `target` are class indices. Classes without examples have count and mean 0."""
        x = features.double()
        count = torch.bincount(target, minlength=classes).to(x)
        mean = x.new_zeros(classes, x.shape[1]).index_add(0, target, x) / count.clamp(min=1)[:, None]
        centred = x - mean[target]
        trace = x.new_zeros(classes).index_add(0, target, centred.square().sum(1))
        directions = x.new_zeros(classes, rank, x.shape[1])
        if rank:
            for k in torch.unique(target).tolist():
                directions[k] = _principal_directions(centred[target == k], rank)
        degrees_of_freedom = count.sum() - (count > 0).sum()
        return cls(
            count, mean, centred.T @ centred, degrees_of_freedom, directions, trace - directions.square().sum((1, 2))
        )

    @property
    def centre(self) -> Float[Tensor, " width"]:
        """Mean of all features."""
        return (self.count @ self.mean) / self.count.sum().clamp(min=1)

    @property
    def between(self) -> Float[Tensor, "width width"]:
        """Between-class covariance: of the class means, weighted by count."""
        offset = self.mean - self.centre
        return (offset.T * (self.count / self.count.sum().clamp(min=1))) @ offset

    @property
    def within(self) -> Float[Tensor, "width width"]:
        """Pooled within-class covariance; if no class has two examples, a multiple of the identity with the between-class trace."""
        if self.degrees_of_freedom > 0:
            return self.scatter / self.degrees_of_freedom
        return self.between.trace() / len(self.scatter) * torch.eye(len(self.scatter)).to(self.scatter)

    @property
    def total(self) -> Float[Tensor, "width width"]:
        """Total covariance."""
        count = self.count.sum().clamp(min=1)
        return self.within * ((count - len(self.count)).clamp(min=0) / count) + self.between

    def double(self) -> "ClassStatistics":
        """In float64."""
        return ClassStatistics(**{name: t.double() for name, t in vars(self).items()})

    def float(self) -> "ClassStatistics":
        """In float32, as stored."""
        return ClassStatistics(**{name: t.float() for name, t in vars(self).items()})

    def without_directions(self) -> "ClassStatistics":
        """Without principal directions: all of each class's scatter is residual."""
        explained = torch.linalg.vector_norm(self.directions, dim=(1, 2)).square()
        return replace(self, directions=self.directions[:, :0], residual=self.residual + explained)

    def with_equal_counts(self) -> "ClassStatistics":
        """With the same number of examples in every class, their mean: between-class covariance and centre weigh classes alike."""
        return replace(self, count=self.count.mean().expand_as(self.count))

    def with_examples(
        self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"], rank: int
    ) -> "ClassStatistics":
        """With these examples added, in this precision; computed in float64 for their classes alone. New classes come last."""
        own = torch.unique(target)
        new = ClassStatistics.of(features, torch.searchsorted(own, target), len(own), rank)
        whole = self.padded(max(len(self.count), int(own[-1]) + 1))  # copies, which may change
        found = whole.at(own.tolist()).double().joined(new)
        rows = {
            name: getattr(whole, name).index_copy_(0, own, getattr(found, name).to(self.mean)) for name in PER_CLASS
        }
        return ClassStatistics(
            scatter=found.scatter.to(self.mean), degrees_of_freedom=found.degrees_of_freedom.to(self.mean), **rows
        )

    def with_means(self, mean: Float[Tensor, "new width"], count: int) -> "ClassStatistics":
        """With new classes of these means, each as of `count` examples that scatter as those of all classes do."""
        new, within = len(mean), self.within
        values, vectors = torch.linalg.eigh((count - 1) * within)
        rows = values.clamp(min=0).sqrt()[:, None] * vectors.T  # rowsᵀ rows = (count − 1) Σ
        whole = self.padded(len(self.count) + new)
        whole.count[-new:], whole.mean[-new:] = count, mean.to(self.mean)
        directions = _principal_directions(rows, self.directions.shape[1])
        whole.directions[-new:], whole.residual[-new:] = directions, rows.square().sum() - directions.square().sum()
        more = new * (count - 1)
        return replace(whole, scatter=self.scatter + more * within, degrees_of_freedom=self.degrees_of_freedom + more)

    def padded(self, classes: int) -> "ClassStatistics":
        """Padded with empty classes up to this number."""
        more = classes - len(self.count)

        def longer(t: Tensor) -> Tensor:
            return torch.cat([t, t.new_zeros(more, *t.shape[1:])])

        return ClassStatistics(
            longer(self.count),
            longer(self.mean),
            self.scatter,
            self.degrees_of_freedom,
            longer(self.directions),
            longer(self.residual),
        )

    def joined(self, other: "ClassStatistics") -> "ClassStatistics":
        """Statistics of the union of both sets of examples, for the same classes.

        Scatter by Chan, Golub, LeVeque 1983; principal directions of classes with examples in both are recomputed.
        """
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        offset = other.mean - self.mean
        between = self.count * share
        both = between > 0
        directions = torch.where((self.count > 0)[:, None, None], self.directions, other.directions)
        residual = self.residual + other.residual
        for k in both.nonzero()[:, 0].tolist() if directions.shape[1] else []:
            rows = torch.cat([self.directions[k], other.directions[k], between[k].sqrt() * offset[k : k + 1]])
            directions[k] = _principal_directions(rows, directions.shape[1])
            residual[k] += rows.square().sum() - directions[k].square().sum()
        if not directions.shape[1]:
            residual = residual + between * offset.square().sum(1)
        return ClassStatistics(
            count,
            self.mean + share[:, None] * offset,
            self.scatter + other.scatter + (offset.T * between) @ offset,
            self.degrees_of_freedom + other.degrees_of_freedom + both.sum(),
            directions,
            residual,
        )

    def mapped(
        self, matrix: Float[Tensor, "width width"], centre: Float[Tensor, " width"], shift: Float[Tensor, " width"]
    ) -> "ClassStatistics":
        """Statistics after the affine map x ↦ centre + shift + (x − centre) · matrix."""
        before = self.directions.square().sum((1, 2)) + self.residual
        directions, scatter = self.directions @ matrix, matrix.T @ self.scatter @ matrix
        scale = scatter.trace() / self.scatter.trace().clamp(
            min=1e-30
        )  # for the residual, whose directions are unknown
        residual = torch.where(before > 0, self.residual * scale, self.residual)
        mean = torch.where((self.count > 0)[:, None], centre + shift + (self.mean - centre) @ matrix, self.mean)
        return replace(self, mean=mean, scatter=scatter, directions=directions, residual=residual)

    def at(self, classes: list[int]) -> "ClassStatistics":
        """Restricted to these classes, in this order; the pooled scatter keeps the others' share."""
        return ClassStatistics(
            self.count[classes],
            self.mean[classes],
            self.scatter,
            self.degrees_of_freedom,
            self.directions[classes],
            self.residual[classes],
        )


def shrunk(covariance: Float[Tensor, "width width"], shrinkage: float) -> Float[Tensor, "width width"]:
    """Shrinkage estimate of a covariance: (1 − shrinkage) Σ + shrinkage · tr(Σ)/d · I."""
    ridge = (shrinkage * covariance.trace() / len(covariance)).clamp(min=1e-9)
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return (1 - shrinkage) * covariance + ridge * eye


def _principal_directions(rows: Float[Tensor, "row width"], rank: int) -> Float[Tensor, "rank width"]:
    """Scaled top `rank` right singular vectors: the best approximation of Σ sᵀs by as many rows."""
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    found = values[:rank, None] * directions[:rank]
    return torch.cat([found, found.new_zeros(rank - len(found), rows.shape[1])])
