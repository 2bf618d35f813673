"""What is kept of a class in place of its examples: how many there were, their mean, and how they spread."""

from dataclasses import dataclass, replace

import torch

from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class ClassStatistics:
    """Number and mean of each class's features, their scatter Σ (x − μ_class)(x − μ_class)ᵀ pooled over all classes, and the main
    directions of each class's own scatter: Σ_i s_i s_iᵀ over the rows s of `spread`, and `rest` of its trace beside them.

    All that heads need, and no example among it. Computed in float64; kept in whatever type it is put.
    """

    count: Float[Tensor, " klass"]
    mean: Float[Tensor, "klass width"]
    scatter: Float[Tensor, "width width"]
    freedom: Float[Tensor, ""]
    """Examples less classes that the scatter was summed over, those of forgotten classes among them."""
    spread: Float[Tensor, "klass rank width"]
    rest: Float[Tensor, " klass"]

    @classmethod
    def of(
        cls, features: Float[Tensor, "batch width"], klass: Int[Tensor, " batch"], classes: int, rank: int = 0
    ) -> "ClassStatistics":
        """The statistics of these features; `klass` counts from 0, classes that do not occur have no count and mean 0."""
        x = features.double()
        count = torch.bincount(klass, minlength=classes).to(x)
        mean = x.new_zeros(classes, x.shape[1]).index_add(0, klass, x) / count.clamp(min=1)[:, None]
        centred = x - mean[klass]
        trace = x.new_zeros(classes).index_add(0, klass, centred.square().sum(1))
        spread = x.new_zeros(classes, rank, x.shape[1])
        if rank:
            for k in torch.unique(klass).tolist():
                spread[k] = _main_directions(centred[klass == k], rank)
        freedom = count.sum() - (count > 0).sum()
        return cls(count, mean, centred.T @ centred, freedom, spread, trace - spread.square().sum((1, 2)))

    @property
    def centre(self) -> Float[Tensor, " width"]:
        """The mean of all features."""
        return (self.count @ self.mean) / self.count.sum().clamp(min=1)

    @property
    def between(self) -> Float[Tensor, "width width"]:
        """The covariance of the classes' means, each as often as it has examples."""
        apart = self.mean - self.centre
        return (apart.T * (self.count / self.count.sum().clamp(min=1))) @ apart

    @property
    def within(self) -> Float[Tensor, "width width"]:
        """The covariance that all classes share; where no class has two examples, of the size at which classes lie apart."""
        if self.freedom > 0:
            return self.scatter / self.freedom
        return self.between.trace() / len(self.scatter) * torch.eye(len(self.scatter)).to(self.scatter)

    @property
    def total(self) -> Float[Tensor, "width width"]:
        """The covariance of all features around their mean."""
        count = self.count.sum().clamp(min=1)
        return self.within * ((count - len(self.count)).clamp(min=0) / count) + self.between

    def double(self) -> "ClassStatistics":
        """The same in float64."""
        return ClassStatistics(**{name: t.double() for name, t in vars(self).items()})

    def float(self) -> "ClassStatistics":
        """The same in float32, as it is kept."""
        return ClassStatistics(**{name: t.float() for name, t in vars(self).items()})

    def padded(self, classes: int) -> "ClassStatistics":
        """With room for classes that have no example yet, up to this number."""
        more = classes - len(self.count)

        def longer(t: Tensor) -> Tensor:
            return torch.cat([t, t.new_zeros(more, *t.shape[1:])])

        return ClassStatistics(
            longer(self.count), longer(self.mean), self.scatter, self.freedom, longer(self.spread), longer(self.rest)
        )

    def joined(self, other: "ClassStatistics") -> "ClassStatistics":
        """Of the examples of both, for the same classes: what both would give if computed together.

        Scatter by Chan, Golub, LeVeque 1983; the main directions of a class that has examples in both are found again.
        """
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        apart = other.mean - self.mean
        between = self.count * share
        both = between > 0
        spread = torch.where((self.count > 0)[:, None, None], self.spread, other.spread)
        rest = self.rest + other.rest
        for k in both.nonzero()[:, 0].tolist() if spread.shape[1] else []:
            rows = torch.cat([self.spread[k], other.spread[k], between[k].sqrt() * apart[k : k + 1]])
            spread[k] = _main_directions(rows, spread.shape[1])
            rest[k] += rows.square().sum() - spread[k].square().sum()
        if not spread.shape[1]:
            rest = rest + between * apart.square().sum(1)
        return ClassStatistics(
            count,
            self.mean + share[:, None] * apart,
            self.scatter + other.scatter + (apart.T * between) @ apart,
            self.freedom + other.freedom + both.sum(),
            spread,
            rest,
        )

    def moved(
        self, matrix: Float[Tensor, "width width"], centre: Float[Tensor, " width"], shift: Float[Tensor, " width"]
    ) -> "ClassStatistics":
        """As if every feature x had become centre + shift + (x − centre) · matrix."""
        before = self.spread.square().sum((1, 2)) + self.rest
        spread, scatter = self.spread @ matrix, matrix.T @ self.scatter @ matrix
        scale = scatter.trace() / self.scatter.trace().clamp(min=1e-30)  # of what no direction is known of
        rest = torch.where(before > 0, self.rest * scale, self.rest)
        mean = torch.where((self.count > 0)[:, None], centre + shift + (self.mean - centre) @ matrix, self.mean)
        return replace(self, mean=mean, scatter=scatter, spread=spread, rest=rest)

    def at(self, classes: list[int]) -> "ClassStatistics":
        """Of these classes only, in this order; what the others gave to the pooled scatter stays in it."""
        return ClassStatistics(
            self.count[classes],
            self.mean[classes],
            self.scatter,
            self.freedom,
            self.spread[classes],
            self.rest[classes],
        )


def shrunk(covariance: Float[Tensor, "width width"], shrinkage: float) -> Float[Tensor, "width width"]:
    """A covariance that can be inverted: (1 − shrinkage) Σ + shrinkage · tr(Σ)/d · I."""
    ridge = (shrinkage * covariance.trace() / len(covariance)).clamp(min=1e-9)
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return (1 - shrinkage) * covariance + ridge * eye


def _main_directions(rows: Float[Tensor, "row width"], rank: int) -> Float[Tensor, "rank width"]:
    """`rank` rows whose Σ sᵀs is the nearest to that of all rows (its largest eigenvectors, scaled)."""
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    found = values[:rank, None] * directions[:rank]
    return torch.cat([found, found.new_zeros(rank - len(found), rows.shape[1])])
