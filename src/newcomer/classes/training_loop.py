"""Training of one task by Adam: an adapter's parameters and a linear head that grows with the classes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.configuration import LossClasses, Runtime, Training
from newcomer.classes.cost import numbers
from newcomer.classes.cross_validation import FOLDS, cross_validate
from newcomer.classes.heads import make_head
from newcomer.classes.loader import Loader
from newcomer.classes.parts import Adapter, Learned, Part, Steps, Task
from newcomer.errors import SettingError
from newcomer.nn.distillation import soft_divergence
from newcomer.nn.features.augmentation import augmented
from newcomer.nn.features.temperature import temperature_of_loss
from newcomer.nn.gradient_checkpointing import blocks_of, checkpointed
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.averaging import Average
from newcomer.training.fit import batches, chunks, compiled, cosine, fit
from newcomer.training.learner import Step
from newcomer.training.processes import Processes

DISTILLATION_TEMPERATURE = 2.0
"""Of both softmaxes of the distillation loss, as in Li, Hoiem 2016."""


class TrainingLoop(Part):
    """Trains an adapter's parameters by Adam, together with a linear head that grows with the classes.

    The loss is the cross entropy over the logits of the task's classes (`new`), or of all classes `seen` so far, and the adapter's
    own term. Under the uniform prior logits are adjusted in the loss by the logarithms of the classes' shares, so that those which
    are learned owe nothing to them (logit adjustment, τ = 1: Menon et al., ICLR 2021, arXiv 2007.07314).
    """

    parameter_count = 0
    """Number of parameters that the last task trained, without old rows of the head outside its loss."""

    def __init__(
        self, backbone: Backbone, training: Training, runtime: Runtime, loss_classes: LossClasses = "new"
    ) -> None:
        self.training, self.loss_classes, self.torch_compile = training, loss_classes, runtime.torch_compile
        # autocast's copies of all blocks' weights would be kept for the backward pass
        is_copied = backbone.sharding is not None and training.precision == "bf16" and backbone.dtype == torch.float32
        self.gradient_checkpointing = runtime.gradient_checkpointing or is_copied
        if self.gradient_checkpointing and not blocks_of(backbone.model):
            raise SettingError(
                f"gradient_checkpointing: the model of '{backbone.name}' has no list of equal blocks; leave it out"
            )
        if runtime.torch_compile and backbone.sharding is not None:
            raise SettingError("torch_compile: a backbone under shard_backbone is not compiled; leave one of them out")
        if backbone.dtype == torch.float16:
            raise SettingError(
                "Backbone: dtype = 'float16' has too small a range for gradients; give 'bfloat16', or the method "
                "'frozen'"
            )
        self.linear_head = LinearHead(backbone.width).to(backbone.device)
        self.processes = Processes(runtime.device)

    def init_head(
        self,
        memory: ClassMemory,
        shrinkage: float,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
    ) -> None:
        """Set all rows of the linear head by linear discriminant analysis, with a task's features before training.

        Their temperature is the one that fits held-out examples ('lda'), or the one at which the loss of the task's own examples is
        what it was for held-out ones ('tempered'): on features as wide as examples are many, LDA leaves its own hardly any loss.
        """
        rows = self.linear_head.rows()
        after, _ = memory.with_task(features, target, "lda", shrinkage, rows, calibrated=["lda"])
        weight, bias = after.fold(make_head("lda", shrinkage), rows)
        divisor = after.temperature("lda")
        if self.training.head_init == "tempered":
            found = cross_validate(memory.statistics, features, target, rows, shrinkage, {"lda": FOLDS})
            classes = self._loss_classes(target)
            own = F.linear(features, weight, bias)[:, classes], torch.searchsorted(classes, target)
            if found is not None:
                logits, columns = found.logits["lda"]
                held_out = logits[:, classes], torch.searchsorted(classes, columns)
                divisor = temperature_of_loss(*own, F.cross_entropy(held_out[0] / divisor, held_out[1]).item())
        self.linear_head.set(weight / divisor, bias / divisor)

    def fit(self, task: Task, adapter: Adapter, groups: Mapping[str, Sequence[nn.Parameter]]) -> Steps:
        """Train these parameters of the adapter and the linear head on a task, yielding after every step.

        `groups`: 'factors' are trained at `learning_rate`, all others at `head_learning_rate`; without any the adapter is frozen.
        """
        training, loader, backbone = self.training, task.loader, adapter.backbone
        lr_factor = 1.0 if task.is_first else training.later_lr_factor
        trained = {**groups, "head": [*self.linear_head.parameters()]}
        rates = {"factors": training.learning_rate * lr_factor}
        head_rate = (training.head_learning_rate or training.learning_rate) * lr_factor
        parameters = [p for group in trained.values() for p in group]
        average = Average(parameters, training.weight_averaging)
        optimizer = torch.optim.Adam([{"params": p, "lr": rates.get(name, head_rate)} for name, p in trained.items()])
        plan = batches(len(task.target), training.batch_size, training.epochs, training.seed, task.name, "batches")
        factor = cosine(len(plan)) if training.schedule == "cosine" else lambda step: 1.0
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        loss_classes = self._loss_classes(task.target)
        target = torch.searchsorted(loss_classes, task.target).to(backbone.device)
        log_prior = _log_prior(target, len(loss_classes)) if task.prior == "uniform" else 0.0
        loss_classes = loss_classes.to(backbone.device)
        adapter_size = numbers(p for group in groups.values() for p in group)
        distill = self._distillation(task, adapter)
        rows = len(loss_classes) if distill is None else self.linear_head.classes
        self.parameter_count = adapter_size + rows * (backbone.width + 1)
        generator = task.spawn("augmentation", self.processes.index)
        passes = [self._passes(loader, batch) for batch in plan]
        tensors = loader.batches([part for parts in passes for part, _ in parts])

        def losses(step: int) -> Iterator[Tensor]:
            for part, weight in passes[step]:
                encoded = backbone.to_device(next(tensors))
                if weight:  # a pass for the others takes no random numbers
                    encoded = augmented(encoded, training.augment, generator)
                with nullcontext() if groups else torch.no_grad():
                    features, own = adapter.encode_with_loss(encoded)
                logits = self.linear_head(features).float()
                compared = logits[:, loss_classes] + log_prior
                loss = F.cross_entropy(compared, target[part], reduction="sum") + own
                loss = loss if distill is None else loss + distill(encoded, logits)
                yield weight * loss / len(plan[step])

        blocks = blocks_of(adapter.encoder) if self.gradient_checkpointing else []
        with closing(tensors), checkpointed(blocks), self._compiled(adapter):
            for step, values in enumerate(fit(range(len(plan)), losses, optimizer, self.processes), 1):
                schedule.step()
                average.update(parameters, step / len(plan))
                yield Step(task.name, step, len(plan), values)
        average.copy_to(parameters)
        return Learned()

    def _loss_classes(self, target: Int[Tensor, " example"]) -> Int[Tensor, " class"]:
        """Classes whose logits are in the cross entropy: those of the task, or all."""
        return torch.unique(target) if self.loss_classes == "new" else torch.arange(self.linear_head.classes)

    def _distillation(self, task: Task, adapter: Adapter) -> Callable[[Mapping[str, Tensor], Tensor], Tensor] | None:
        """Distillation loss of a batch's inputs and logits, λ T² KL(softmax(z_old / T) ‖ softmax(z / T)), summed over examples.

        z_old are the logits of the classes known before the task, by the weights and head rows at its beginning; None without.
        """
        weight, known = self.training.logit_distillation, task.known
        if not weight or not known:
            return None
        teacher = adapter.teacher()
        rows = self.linear_head.weight[:known].detach().clone(), self.linear_head.bias[:known].detach().clone()

        def loss(encoded: Mapping[str, Tensor], logits: Float[Tensor, "batch class"]) -> Tensor:
            old = F.linear(teacher(encoded), *rows)
            divergence = soft_divergence(logits[:, :known], old, DISTILLATION_TEMPERATURE)
            return weight * DISTILLATION_TEMPERATURE**2 * divergence

        return loss

    @contextmanager
    def _compiled(self, adapter: Adapter) -> Iterator[None]:
        """Within, the adapter's forward passes are compiled, if `torch_compile` is set."""
        plain = adapter.encoder
        adapter.encoder = compiled(plain) if self.torch_compile else plain
        try:
            yield
        finally:
            adapter.encoder = plain

    def _micro_batches(self, loader: Loader, batch: Sequence[int]) -> list[list[int]]:
        """This process's share of a batch in micro-batches, texts of similar length together."""
        share, parts = self.processes.share(batch), self.training.gradient_accumulation_steps
        order = loader.backbone.sort_by_length(loader.inputs, share) if parts > 1 else list(share)
        return [order[part.start : part.stop] for part in _divided(len(order), parts)]

    def _passes(self, loader: Loader, batch: Sequence[int]) -> list[tuple[list[int], float]]:
        """Micro-batches with their weights in the loss.

        Passes of a sharded backbone are passes of all processes: one of weight 0 takes the place of each that others have more.
        """
        found = [(part, 1.0) for part in self._micro_batches(loader, batch)]
        if loader.backbone.sharding is None:
            return found
        parts = self.training.gradient_accumulation_steps
        most = max(len(_divided(size, parts)) for size in self.processes.shares(len(batch)))
        return found + [(list(batch[:1]), 0.0)] * (most - len(found))

    def reset(self) -> None:
        self.keep([])

    def state(self) -> dict[str, Tensor]:
        return {"linear_head.weight": self.linear_head.weight, "linear_head.bias": self.linear_head.bias}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.linear_head.set(state["linear_head.weight"], state["linear_head.bias"])

    def keep(self, classes: list[int]) -> None:
        self.linear_head.set(self.linear_head.weight[classes].detach(), self.linear_head.bias[classes].detach())


def _divided(size: int, parts: int) -> Sequence[range]:
    """A share of this size in at most so many parts."""
    return chunks(size, max(1, math.ceil(size / parts)))


def _log_prior(target: Int[Tensor, " example"], classes: int) -> Float[Tensor, " class"]:
    """log(n / mean n) of these classes; 0 for those that have no example."""
    count = torch.bincount(target, minlength=classes)
    own = count > 0
    return torch.where(own, (count.clamp(min=1) / count[own].float().mean()).log(), 0.0)
