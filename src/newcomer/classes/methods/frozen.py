"""The frozen backbone with a head that needs no training: the floor that every adaptation has to clear."""

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import StatisticsHead
from newcomer.classes.learner import ClassLearner
from newcomer.nn.heads.head import Linear
from newcomer.settings import checked
from newcomer.training.settings import Share


class FrozenBackbone(ClassLearner):
    """What is remembered of each class's frozen features, read by a head. One pass over the data, order does not matter.

    - `head`: 'prototypes' (SimpleCIL, Zhou et al. 2023), 'ridge', 'lda', 'gaussian' or 'kernel' (`nn.heads`).
    - `shrinkage`: of covariances towards a multiple of the identity.
    - `device`: 'cpu', 'cuda', …; a GPU if there is one by default.
    """

    name = "frozen"
    adapts = False

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        head: StatisticsHead = "lda",
        shrinkage: Share = 0.3,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(backbone, head=head, shrinkage=shrinkage, drift_map=False, device=device)
        self._clear()

    def _trained(self) -> Linear:
        return torch.zeros(len(self.classes), self.backbone.width), torch.zeros(len(self.classes))
