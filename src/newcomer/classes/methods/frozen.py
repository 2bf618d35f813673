"""Frozen backbone with a head on class statistics: no training at all."""

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import StatisticsHead
from newcomer.classes.configuration import Classifier
from newcomer.classes.learner import ClassLearner
from newcomer.nn.heads.head import Linear
from newcomer.training.settings import Share


class FrozenBackbone(ClassLearner):
    """Class statistics of frozen features, read by a head. One pass over the data; the order of tasks does not matter.

    - `head`: 'prototypes' (SimpleCIL, Zhou et al. 2023), 'ridge', 'lda', 'gaussian' or 'kernel' (`nn.heads`).
    - `shrinkage`: of covariances towards a multiple of the identity.
    - `device`: 'cpu', 'cuda', …; a GPU if there is one by default.
    """

    name = "frozen"
    adapts_backbone = False

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        head: StatisticsHead = "lda",
        shrinkage: Share = 0.3,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(backbone, classifier=Classifier(head, shrinkage, drift_map=False), device=device)
        self._reset()

    def _trained_head(self) -> Linear:
        return torch.zeros(len(self.classes), self.backbone.width), torch.zeros(len(self.classes))
