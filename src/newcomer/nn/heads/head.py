"""What every head can do."""

from abc import ABC, abstractmethod
from typing import ClassVar

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.shapes import Float, Tensor

Linear = tuple[Float[Tensor, "klass width"], Float[Tensor, " klass"]]
"""Weight and bias of a linear classifier of features: logits = x Wᵀ + b."""

Found = tuple[Float[Tensor, "klass term"], Float[Tensor, " klass"]]
"""The same for the terms that a head makes of features."""


class Head(ABC):
    """Finds a classifier from what is kept of the classes, without an example of any of them."""

    slow: ClassVar[bool] = False
    """Whether what it finds is worth keeping: to find it again takes longer than to read it."""

    @abstractmethod
    def fold(self, statistics: ClassStatistics, trained: Linear) -> Found:
        """The classifier of the terms, in the statistics' type; `trained` holds the rows that gradients found, class by class."""

    def points(self, statistics: ClassStatistics) -> Float[Tensor, "point width"] | None:
        """What features are compared with; None where the terms are the features themselves: one linear layer."""
        return None

    def terms(self, statistics: ClassStatistics, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch term"]:
        """What the classifier reads of these features."""
        return features
