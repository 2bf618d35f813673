"""What every head can do."""

from typing import Protocol

from newcomer.nn.class_statistics import ClassStatistics
from newcomer.shapes import Float, Tensor

Linear = tuple[Float[Tensor, "klass width"], Float[Tensor, " klass"]]
"""Weight and bias of a linear classifier: logits = x Wᵀ + b."""


class Head(Protocol):
    """Finds a linear classifier from what is kept of the classes, without an example of any of them."""

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        """The classifier, in the statistics' type; `trained` holds the rows that gradients found, class by class."""
        ...
