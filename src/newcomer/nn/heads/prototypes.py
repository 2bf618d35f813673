"""Cosine prototypes (SimpleCIL: Zhou et al. 2023, arXiv 2303.07338)."""

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.heads.head import Head, Linear
from newcomer.shapes import Float, Tensor


class Prototypes(Head):
    """logit = x · μ/‖μ‖: the argmax is the class mean with the highest cosine similarity."""

    def fold(
        self, statistics: ClassStatistics, trained: Linear, counts: Float[Tensor, " class"] | None = None
    ) -> Linear:
        mean = statistics.mean
        return mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12), mean.new_zeros(len(mean))
