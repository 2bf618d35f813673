"""Training of one task by Adam: an adapter's parameters and a linear head that grows with the classes."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import make_head
from newcomer.classes.configuration import Classifier, CompiledRuntime, LoRATraining, LossClasses, Runtime, Training
from newcomer.classes.cost import numbers
from newcomer.classes.learner import ClassLearner
from newcomer.classes.loader import Loader
from newcomer.errors import LearnerError
from newcomer.nn.features.augmentation import augmented
from newcomer.nn.heads.head import Linear
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.training.averaging import Average
from newcomer.training.fit import batches, chunks, compiled, cosine, fit
from newcomer.training.learner import Step


class GradientLearner(ClassLearner):
    """Trains an adapter of the backbone by Adam, together with a linear head that grows with the classes.

    The loss is the cross entropy over the logits of the task's classes (`new`), or of all classes `seen` so far. A subclass defines
    the trained parameters (`trainable`), the forward pass (`_encode`), and what happens before and after a task.
    """

    adapts_backbone = True

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        loss_classes: LossClasses,
        training: Training,
        classifier: Classifier,
        runtime: Runtime,
    ) -> None:
        super().__init__(backbone, classifier=classifier, device=runtime.device)
        self.loss_classes, self.training, self.cache_gib = loss_classes, training, runtime.cache_gib
        self.head_init, self.later_lr_factor, self.weight_averaging = "zero", 1.0, 0.0
        if isinstance(training, LoRATraining):
            self.head_init, self.later_lr_factor = training.head_init, training.later_lr_factor
            self.weight_averaging = training.weight_averaging
        self.torch_compile = isinstance(runtime, CompiledRuntime) and runtime.torch_compile

    @abstractmethod
    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters that this stage trains, by group: 'factors' at `learning_rate`, the others at `head_learning_rate`."""

    def encoder_weights(self) -> dict[str, Tensor]:
        raise LearnerError(f"{type(self).__name__} is not only an encoder with other weights, so it cannot be exported")

    def _needs_initial_features(self) -> bool:
        return self.head_init == "lda"

    def _init_head(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> None:
        """Initialize all rows of the linear head by calibrated linear discriminant analysis, if `head_init` is 'lda'."""
        if self._needs_initial_features():
            memory, _ = self.memory.with_task(features, target, "lda", self.shrinkage, self._trained_head())
            weight, bias = memory.fold(make_head("lda", self.shrinkage), self._trained_head())
            temperature = memory.temperature("lda")
            self.linear_head.set(weight / temperature, bias / temperature)

    def _train(self, stage: str, loader: Loader, target: Int[Tensor, " example"]) -> Iterator[Step]:
        training = self.training
        lr_factor = self.later_lr_factor if self.classes else 1.0
        self._begin_task(stage)
        groups = self.trainable()
        rates = {"factors": training.learning_rate * lr_factor}
        head_rate = (training.head_learning_rate or training.learning_rate) * lr_factor
        parameters = [p for group in groups.values() for p in group]
        average = Average(parameters, self.weight_averaging)
        optimizer = torch.optim.Adam([{"params": p, "lr": rates.get(name, head_rate)} for name, p in groups.items()])
        plan = batches(len(target), training.batch_size, training.epochs, training.seed, stage, "batches")
        factor = cosine(len(plan)) if training.schedule == "cosine" else lambda step: 1.0
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        loss_classes = torch.unique(target) if self.loss_classes == "new" else torch.arange(self.linear_head.classes)
        target = torch.searchsorted(loss_classes, target).to(self.device)
        loss_classes = loss_classes.to(self.device)
        adapter_size = numbers(p for name, group in groups.items() if name != "head" for p in group)
        self.trainable_parameters = adapter_size + len(loss_classes) * (self.backbone.width + 1)
        generator = spawn(training.seed, stage, "augmentation", self.processes.index)
        micro_batches = [self._micro_batches(loader, batch) for batch in plan]
        tensors = loader.batches([part for parts in micro_batches for part in parts])

        def losses(step: int) -> Iterator[Tensor]:
            for part in micro_batches[step]:
                encoded = augmented(self.backbone.to_device(next(tensors)), training.augment, generator)
                yield self._loss(encoded, target[part], loss_classes) / len(plan[step])

        with closing(tensors), self._compiled():
            for step, values in enumerate(fit(range(len(plan)), losses, optimizer, self.processes), 1):
                schedule.step()
                average.update(parameters, step / len(plan))
                self._on_step(step, len(plan))
                yield Step(stage, step, len(plan), values)
        average.copy_to(parameters)
        self._end_task()

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Within, this learner's forward passes are compiled, if `torch_compile` is set."""
        plain = self._encoder
        self._encoder = compiled(plain) if self.torch_compile else plain
        try:
            yield
        finally:
            self._encoder = plain

    def _loss(
        self, encoded: Mapping[str, Tensor], target: Int[Tensor, " batch"], loss_classes: Int[Tensor, " class"]
    ) -> Float[Tensor, ""]:
        """Summed loss of a batch; `target` are indices into `loss_classes`."""
        logits = self.linear_head(self._encode(encoded))[:, loss_classes].float()
        return F.cross_entropy(logits, target, reduction="sum")

    def _micro_batches(self, loader: Loader, batch: Sequence[int]) -> list[list[int]]:
        """This process's share of a batch in micro-batches, texts of similar length together."""
        share, parts = self.processes.share(batch), self.training.gradient_accumulation_steps
        order = self.backbone.sort_by_length(loader.inputs, share) if parts > 1 else list(share)
        return [order[part.start : part.stop] for part in chunks(len(order), max(1, math.ceil(len(order) / parts)))]

    def _add_classes(self, classes: int) -> None:
        self.linear_head.grow(classes)

    def _keep_classes(self, classes: list[int]) -> None:
        super()._keep_classes(classes)
        self.linear_head.set(self.linear_head.weight[classes].detach(), self.linear_head.bias[classes].detach())

    def _trained_head(self) -> Linear:
        return self.linear_head.weight.detach().cpu(), self.linear_head.bias.detach().cpu()

    def _reset(self) -> None:
        super()._reset()
        self.linear_head = LinearHead(self.backbone.width).to(self.device)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            **super()._tensors(),
            "linear_head.weight": self.linear_head.weight,
            "linear_head.bias": self.linear_head.bias,
        }

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        self.linear_head.set(entry.tensors["linear_head.weight"], entry.tensors["linear_head.bias"])

    def _on_step(self, step: int, steps: int) -> None:
        """Called after each step of a task."""

    @abstractmethod
    def _begin_task(self, stage: str) -> None:
        """Called before a task is trained: add its parameters."""

    @abstractmethod
    def _end_task(self) -> None:
        """Called after a task was trained: freeze its parameters."""
