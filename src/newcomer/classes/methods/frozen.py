"""Frozen backbone with a head on class statistics: no training at all."""

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Classifier, Runtime
from newcomer.classes.heads import StatisticsHeadChoice
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.parts import Learned, NoAdapter, Steps, Task
from newcomer.classes.training_loop import TrainingLoop
from newcomer.nn.heads.head import Prior
from newcomer.training.settings import Share


class FrozenBackbone(ClassLearner):
    """Class statistics of frozen features, read by a head. One pass over the data; the order of tasks does not matter.

    - `head`: 'prototypes' (SimpleCIL, Zhou et al. 2023), 'ridge', 'lda', 'gaussian' or 'kernel' (`nn.heads`), or 'auto', the
      one of least held-out loss so far.
    - `shrinkage`: of covariances towards a multiple of the identity.
    - `prior`: 'uniform' or 'empirical', see `classes.configuration.Classifier`.
    - `device`, `shard_backbone`: see `classes.configuration.Runtime`.
    """

    name = "frozen"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        head: StatisticsHeadChoice = "lda",
        shrinkage: Share = 0.3,
        prior: Prior = "uniform",
        seed: int = 0,
        device: str | None = None,
        shard_backbone: bool = False,
    ) -> None:
        runtime = Runtime(cache_gib=0, device=device, shard_backbone=shard_backbone)
        backbone = open_backbone(backbone, runtime)
        classifier = MemoryClassifier(backbone.width, Classifier(head, shrinkage, drift_map=False, prior=prior))
        super().__init__(NoAdapter(backbone), None, classifier, runtime)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        yield from ()  # never called: there is no loop
        return Learned()
