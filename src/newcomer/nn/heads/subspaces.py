"""Prototypes in the subspaces of several adapters, those of old classes in new subspaces by semantic similarity.

EASE (Zhou et al., CVPR 2024, arXiv 2403.12030). Features are the outputs x_b of several encoders b side by side. A class has a
prototype p_b in each of them; in the subspace of an encoder that is newer than the class, it is synthesized from those of the new
classes j by their similarity in the class's own subspace o:

    p_b = Σ_j s_j p_{j,b},    s = softmax_j cos(p_o, p_{j,o})

The logit of a class is the cosine in its own subspace plus α times the mean of the cosines in all others.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class SubspacePrototypes:
    """Of each class its count of examples, its own subspace, and its prototype in every subspace."""

    count: Float[Tensor, " class"]
    own: Int[Tensor, " class"]
    mean: Float[Tensor, "class subspace width"]

    @classmethod
    def empty(cls, subspaces: int, width: int) -> "SubspacePrototypes":
        """Of no class."""
        return cls(torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.zeros(0, subspaces, width))

    def with_examples(
        self, features: Float[Tensor, "batch subspace width"], target: Int[Tensor, " batch"], newest: int
    ) -> "SubspacePrototypes":
        """With these examples added; classes beyond the known ones have `newest` as their own subspace.

        Where the features have more subspaces than before, the other classes' prototypes there are synthesized.
        """
        known, before = len(self.count), self.mean.shape[1]
        new = max(0, int(target.max()) + 1 - known)
        subspaces, width = features.shape[1], features.shape[2]
        count = torch.cat([self.count, self.count.new_zeros(new)])
        own = torch.cat([self.own, self.own.new_full((new,), newest)])
        mean = self.mean.new_zeros(known + new, subspaces, width)
        mean[:known, :before] = self.mean
        seen = torch.unique(target)
        for k in seen.tolist():
            x = features[target == k].double()
            share = len(x) / (float(count[k]) + len(x))
            mean[k] = (mean[k].double() + share * (x.mean(0) - mean[k].double())).float()
            mean[k, before:] = x.mean(0)[before:].float()  # there it had none
            count[k] += len(x)
        others = torch.tensor([k for k in range(known) if k not in set(seen.tolist())], dtype=torch.long)
        if subspaces > before and len(others):
            for o in torch.unique(own[others]).tolist():
                rows = others[own[others] == o]
                old, near = F.normalize(mean[rows, o], dim=1), F.normalize(mean[seen, o], dim=1)
                weight = (old @ near.T).softmax(1)
                mean[rows, before:] = torch.einsum("on,nsw->osw", weight, mean[seen, before:])
        return SubspacePrototypes(count, own, mean)

    def logits(self, features: Float[Tensor, "batch subspace width"], alpha: float) -> Float[Tensor, "batch class"]:
        """Cosine in each class's own subspace, plus α times the mean cosine in the others."""
        cosines = torch.einsum("bsw,csw->bcs", F.normalize(features, dim=2), F.normalize(self.mean, dim=2))
        subspaces = self.mean.shape[1]
        is_own = F.one_hot(self.own, subspaces).to(cosines)
        return (cosines * (is_own + alpha / max(1, subspaces - 1) * (1 - is_own))).sum(2)

    def at(self, classes: list[int]) -> "SubspacePrototypes":
        """Restricted to these classes."""
        return SubspacePrototypes(self.count[classes], self.own[classes], self.mean[classes])
