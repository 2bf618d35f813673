"""Full fine-tuning of the backbone, task after task."""

from typing import Annotated, Any

from pydantic import Field

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Classifier, CompiledRuntime, LossClasses, Training
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.parts import Learned, Steps, Task
from newcomer.classes.trained_weights import TrainedWeights
from newcomer.classes.training_loop import TrainingLoop


class FullFineTuning(ClassLearner):
    """Trains a copy of the backbone's weights, in a model that shares with the backbone what is not trained.

    The backbone itself does not change, so other learners may use it at the same time. On a stream of one stage it is joint
    training.

    - `weights`: train only weights whose names contain one of these parts, e.g. ["layer.10.", "layer.11."]; all by default.
    - `loss_classes`: cross entropy over the logits of the 'new' classes, or of all classes 'seen'.
    - `classifier`, `training`, `runtime`: see `classes.configuration`. `learning_rate` is of the backbone's weights, far below that
      of low-rank updates; `head_learning_rate` of the linear head.

    Raises SettingError if `weights` matches no name.
    """

    name = "full-fine-tuning"
    adapter: TrainedWeights

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        weights: Annotated[list[str], Field(min_length=1)] | None = None,
        loss_classes: LossClasses = "new",
        classifier: Classifier = Classifier(),
        training: Training = Training(learning_rate=5e-5, head_learning_rate=1e-3),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        backbone = open_backbone(backbone, runtime, whole_for=type(self).__name__)
        loop = TrainingLoop(backbone, training, runtime, loss_classes)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        super().__init__(
            TrainedWeights(backbone, weights, training.precision, type(self).__name__), loop, head, runtime
        )

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        self.adapter.open()
        yield from loop.fit(task, self.adapter, {"factors": list(self.adapter.weights.values())})
        return Learned()
