"""SLCA: slow learner with classifier alignment (Zhang et al., ICCV 2023, arXiv 2303.05118)."""

from typing import Any

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Alignment, Classifier, CompiledRuntime, Training
from newcomer.classes.head_alignment import HeadAlignment
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.parts import Learned, Steps, Task
from newcomer.classes.trained_weights import TrainedWeights
from newcomer.classes.training_loop import TrainingLoop
from newcomer.shapes import Float, Int, Tensor


class SLCA(ClassLearner):
    """Full fine-tuning at a rate far below that of the linear head, and an alignment of that head after every task but the first.

    A task trains all weights, and its own rows of the head by the cross entropy over its own classes (slow learner).
    Then each class is a Gaussian with the mean and the full covariance of its features, and the head is trained over all classes on
    features drawn from these (classifier alignment; `nn.heads.alignment`). A stage stores all trained weights and one
    square matrix of the features' width for each class.

    Departures from the paper: its steps are of SGD with momentum (0.01 for the head, 1e-4 for the backbone), here of Adam at rates
    of the same ratio; new head rows start at zero.

    - `classifier`, `training`, `runtime`: see `classes.configuration` (paper: 20 epochs, batches of 128). `learning_rate` is of
      the backbone's weights, `head_learning_rate` of the linear head. Another `head` than 'linear' does not see the alignment.
    - `alignment`: see `classes.configuration.Alignment`; its defaults are those of the authors' code for CIFAR-100.
    """

    name = "slca"
    fixed_settings = ()
    adapter: TrainedWeights

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        classifier: Classifier = Classifier(drift_map=False),
        alignment: Alignment = Alignment(),
        training: Training = Training(learning_rate=1e-5, head_learning_rate=1e-3),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        backbone = open_backbone(backbone, runtime, whole_for=type(self).__name__)
        loop = TrainingLoop(backbone, training, runtime)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        weights = TrainedWeights(backbone, None, training.precision, type(self).__name__)
        self.alignment = HeadAlignment(backbone.width, alignment, classifier, type(self).__name__)
        super().__init__(weights, loop, head, runtime, self.alignment)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        self.adapter.open()
        yield from loop.fit(task, self.adapter, {"factors": list(self.adapter.weights.values())})
        return Learned()

    def _after_training(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        task: Task | None,
        loop: TrainingLoop,
    ) -> None:
        self.alignment.update(features, target, task, loop)
