"""Sequential fine-tuning of one LoRA (Hu et al., ICLR 2022): the baseline that forgets."""

from typing import Any

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Classifier, CompiledRuntime, LoRATraining, LossClasses
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.lora_adapters import OpenUpdate, low_rank_updates
from newcomer.classes.parts import Learned, Steps, Task
from newcomer.classes.training_loop import TrainingLoop
from newcomer.training.settings import Count, Times


class SequentialLoRA(ClassLearner):
    """One low-rank update, trained further on every task. On a stream of one stage it is joint training.

    - `rank`: of the update.
    - `adapted_tasks`: number of tasks that train the update, the first ones; 1 is first-session adaptation. The linear head trains
      on. None: all tasks.
    - `loss_classes`: cross entropy over the logits of the 'new' classes, or of all classes 'seen' (old rows of the head then only
      get negative examples).
    - `classifier`, `training`, `runtime`: see `classes.configuration`.
    """

    name = "sequential-lora"
    adapter: OpenUpdate

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        adapted_tasks: Times | None = None,
        loss_classes: LossClasses = "new",
        classifier: Classifier = Classifier(),
        training: LoRATraining = LoRATraining(),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        self.rank, self.adapted_tasks = rank, adapted_tasks
        backbone = open_backbone(backbone, runtime)
        self.lora = low_rank_updates(backbone, rank, type(self).__name__)
        loop = TrainingLoop(backbone, training, runtime, loss_classes)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        super().__init__(OpenUpdate(backbone, self.lora, training.precision), loop, head, runtime)

    def _adapts_now(self) -> bool:
        adapted = sum(entry.info.get("adapted", False) for entry in self.entries)
        return self.adapted_tasks is None or adapted < self.adapted_tasks

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        adapts = self._adapts_now()
        if adapts:
            self.adapter.open(self.rank, task.spawn("direction"))
        # the factors alone: LoRA has no magnitudes
        yield from loop.fit(task, self.adapter, {"factors": self.lora.trainable()["factors"]} if adapts else {})
        return Learned({"adapted": adapts})
