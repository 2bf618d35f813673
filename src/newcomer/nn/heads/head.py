"""Interface of heads: classifiers computed from class statistics."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.shapes import Float, Tensor

Linear = tuple[Float[Tensor, "class width"], Float[Tensor, " class"]]
"""Weight and bias of a linear classifier of features: logits = x Wᵀ + b."""

WeightBias = tuple[Float[Tensor, "class term"], Float[Tensor, " class"]]
"""Weight and bias of a linear classifier of a head's terms (the features, or kernel values)."""


Prior = Literal["uniform", "empirical"]
"""How frequent classes are before an input is seen: all alike, or as in the examples."""


class Head(ABC):
    """Computes a classifier from class statistics, without examples."""

    slow: ClassVar[bool] = False
    """Whether the classifier is stored because computing it takes longer than reading it."""

    uses_directions: ClassVar[bool] = False
    """Whether it needs the classes' principal directions."""

    estimates_prior: ClassVar[bool] = False
    """Whether its logits have the frequencies of the classes in them, so that none are added for the empirical prior."""

    @abstractmethod
    def fold(
        self, statistics: ClassStatistics, trained: Linear, counts: Float[Tensor, " class"] | None = None
    ) -> WeightBias:
        """Weight and bias, in the statistics' dtype; `trained`: the linear head trained by gradients.

        `counts`: examples of each class by which heads of Gaussians allow for the error of its mean; those of the statistics by
        default.
        """

    def support_points(self, statistics: ClassStatistics) -> Float[Tensor, "point width"] | None:
        """Support points of a kernel head; None if the classifier reads the features: one linear layer."""
        return None

    def terms(self, statistics: ClassStatistics, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch term"]:
        """Input of the classifier: the features, or their kernel values with the support points."""
        return features
