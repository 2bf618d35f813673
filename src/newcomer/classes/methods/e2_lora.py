"""E²-LoRA: low-rank updates that share out the output space among tasks (ICML 2026, arXiv 2605.27482)."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, final

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Alignment, Classifier, CompiledRuntime, Training
from newcomer.classes.head_alignment import HeadAlignment
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.parts import Adapter, Learned, Steps, Task, autocast
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import LearnerError
from newcomer.nn.distillation import soft_divergence
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.nn.lora.input_moments import InputMoments
from newcomer.nn.lora.output_spaces import OutputSpaceLoRA
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.learner import Step
from newcomer.training.settings import NotNegative, Rate, Share

PREFIX = "e2lora."


class E2LoRA(ClassLearner):
    """Updates of high rank that keep old logits, in output directions that old tasks do not use; then the head is aligned.

    - Query, key and value projections and the first MLP layer of each block are adapted (`Backbone.block_projections`), each task
      in the output directions that older tasks leave free (`nn.lora.output_spaces`). The updates fold into the weights, and what is
      stored does not grow with the tasks.
    - A task's loss is the cross entropy over its own classes, plus λ T² KL(softmax(z_old / T) ‖ softmax(z / T)) of old classes'
      logits on its examples, z_old by the weights before the task; old rows of the head do not change.
    - After every task but the first the head is trained over all classes on features drawn from the classes' Gaussians, as in SLCA
      (`nn.heads.alignment`, without the normalization of logits).

    The equations are those of the authors' code. Departures: query, key and value have an output space each, there one together;
    directions are ordered by the outputs' energy on all examples of a task, uncentred, there by their variance on the first batch;
    a limit on the kept directions lowers the threshold continuously, there in steps; steps are of Adam, there of SGD with momentum
    and weight decay (0.01 for the head, 5e-4 for the updates); new head rows start at zero.

    - `threshold`: share of a task's output energy that is kept before the next task (the authors' code: 0.99999); less where the
      space is short.
    - `kd_weight`, `kd_temperature`: λ and T (the authors' code: 0.25 and 2).
    - `classifier`, `training`, `runtime`: see `classes.configuration` (the authors' code: 5 epochs, batches of 64, rates of the
      updates a twentieth of the head's). Another `head` than 'linear' does not see the alignment.
    - `alignment`: see `classes.configuration.Alignment`; the authors' code has 3 epochs.
    """

    name = "e2-lora"
    fixed_settings = ()
    adapter: "SharedOutputs"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        threshold: Share = 0.99999,
        kd_weight: NotNegative = 0.25,
        kd_temperature: Rate = 2.0,
        classifier: Classifier = Classifier(drift_map=False),
        alignment: Alignment = Alignment(alignment_epochs=3, logit_norm=0.0),
        training: Training = Training(epochs=5, batch_size=64, learning_rate=5e-5, head_learning_rate=1e-3),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        self.threshold = threshold
        backbone = open_backbone(backbone, runtime, whole_for=type(self).__name__)
        if not backbone.block_projections:
            raise LearnerError(
                f"backbone '{backbone.name}' has no linear query and value projections that are known; "
                "name the modules to adapt in its target_modules"
            )
        loop = TrainingLoop(backbone, training, runtime)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        adapter = SharedOutputs(backbone, loop.linear_head, training.precision, kd_weight, kd_temperature)
        self.alignment = HeadAlignment(backbone.width, alignment, classifier, type(self).__name__)
        super().__init__(adapter, loop, head, runtime, self.alignment)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        self.adapter.known = len(self.classes)
        self.adapter.lora.open(self.threshold, task.spawn("update"))
        yield from loop.fit(task, self.adapter, {"factors": self.adapter.lora.trainable()})
        moments = yield from self._input_moments(task)
        self.adapter.lora.close(moments)
        return Learned()

    def _after_training(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        task: Task | None,
        loop: TrainingLoop,
    ) -> None:
        self.alignment.update(features, target, task, loop)

    def _input_moments(self, task: Task) -> Generator[Step, None, list[Float[Tensor, "width width"]]]:
        """Second moments of a task's inputs to each adapted layer, summed over processes."""
        moments = InputMoments(self.backbone.model, self.backbone.block_projections)

        def watch(rows: Sequence[int], encoded: Mapping[str, Tensor]) -> None:
            with moments.watched(encoded.get("attention_mask")):
                self.adapter.encode(encoded)

        yield from self._pass(f"{task.name}, outputs", task.loader, range(len(task.target)), watch)
        self.processes.add_up(moments.found)
        if not all(moment.isfinite().all() for moment in moments.found):
            raise LearnerError("the inputs of a layer are not finite; lower the learning rate")
        return moments.found


@final
class SharedOutputs(Adapter):
    """A backbone with updates that share out the output space, and the loss that keeps old logits."""

    known: int
    """Number of classes that were known before the task that is trained."""

    def __init__(
        self, backbone: Backbone, linear_head: LinearHead, precision: str, kd_weight: float, kd_temperature: float
    ) -> None:
        super().__init__(backbone)
        self.linear_head, self.precision = linear_head, precision
        self.kd_weight, self.kd_temperature = kd_weight, kd_temperature
        self.lora = OutputSpaceLoRA(backbone.model, backbone.block_projections)

    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        with self.lora.applied(), autocast(self.backbone, self.precision):
            features: Tensor = self.backbone(encoded, self.encoder)
            return features.float()

    def encode_with_loss(self, encoded: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch width"], Tensor | float]:
        features = self.encode(encoded)
        if not self.known or not self.kd_weight:
            return features, 0.0
        with torch.no_grad(), self.lora.applied_before(), autocast(self.backbone, self.precision):
            before: Tensor = self.backbone(encoded, self.encoder).float()
        weight, bias = (rows.detach()[: self.known] for rows in (self.linear_head.weight, self.linear_head.bias))
        now, then = (F.linear(x, weight, bias) for x in (features, before))
        divergence = soft_divergence(now, then, self.kd_temperature)
        return features, self.kd_weight * self.kd_temperature**2 * divergence

    def encoder_weights(self) -> dict[str, Tensor]:
        """W0 + ΔW of every adapted layer, by the weight's name in `backbone.model`."""
        return {f"{name}.frozen.weight": self.lora.weight(p) for p, name in enumerate(self.backbone.block_projections)}

    def reset(self) -> None:
        self.known = 0
        self.lora.clear()

    def state(self) -> dict[str, Tensor]:
        return {PREFIX + key: tensor for key, tensor in self.lora.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.lora.load_state_dict({key.removeprefix(PREFIX): t for key, t in state.items() if key.startswith(PREFIX)})
