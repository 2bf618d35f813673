"""CL-LoRA: continual low-rank adaptation (He et al., CVPR 2025, arXiv 2505.24816)."""

from collections.abc import Iterable, Mapping
from typing import Any, final

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import CompiledRuntime, Training
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.lora_adapters import low_rank_updates
from newcomer.classes.parts import Adapter, Learned, Steps, Task, autocast
from newcomer.classes.subspace_classifier import SubspaceClassifier
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import LearnerError
from newcomer.nn.distillation import soft_divergence
from newcomer.nn.early_exit import skipped
from newcomer.nn.gradient_checkpointing import blocks_of
from newcomer.nn.heads.head import Prior
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.nn.lora.shared_and_task_lora import SharedAndTaskLoRA, TaskFactors
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, NotNegative, Rate, Share

PREFIX = "cllora."


class CLLoRA(ClassLearner):
    """LoRAs that all tasks share in the first half of the blocks, and LoRAs of each task in the second half.

    See `nn.lora.shared_and_task_lora`. From the second task on two terms are added to the cross entropy over a task's classes:

    - distillation, weight · KL(softmax(z_old / T) ‖ softmax(z / T)), of the logits that the task's own rows of the head give to
      the features at the end of the shared blocks, z_old by the shared LoRAs before the task; its gradient of a row of B is
      multiplied by the row's old norm over the rows' mean norm (gradient reassignment);
    - the mean |cos| between the task's block weights μ and those of each earlier task.

    A class is its mean in the subspace of its own task (`nn.heads.subspaces`, α = 0). A prediction takes a pass for the plain
    backbone and for every task, and a model cannot be exported.

    Departures from the paper: the shared blocks are computed anew for every task; rows of the head are linear, from zero, there of
    cosines; the plain backbone's features are one more subspace, the own one of classes that came without training; steps are of
    Adam, there of SGD.

    - `rank`: of every LoRA (the authors' code: 10).
    - `shared_blocks`: share of the blocks, the first ones, whose LoRAs are shared (paper: half).
    - `kd_weight`, `kd_temperature`: of the distillation (the authors' code: 5 and 2).
    - `orthogonality_weight`: of the overlap of block weights (the authors' code: 1e-4).
    - `shrinkage`: of covariances, for novelty scores, which use the plain backbone's features.
    - `prior`: 'uniform' or 'empirical', see `classes.configuration.Classifier`.
    - `training`, `runtime`: see `classes.configuration`.
    """

    name = "cl-lora"
    adapter: "SharedAndTask"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        shared_blocks: Share = 0.5,
        kd_weight: NotNegative = 5.0,
        kd_temperature: Rate = 2.0,
        orthogonality_weight: NotNegative = 1e-4,
        shrinkage: Share = 0.3,
        prior: Prior = "uniform",
        training: Training = Training(learning_rate=2e-3),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        learner = type(self).__name__
        backbone = open_backbone(backbone, runtime, whole_for=learner)
        low_rank_updates(backbone, rank, learner)  # refuses what it cannot adapt
        loop = TrainingLoop(backbone, training, runtime)
        head = SubspaceClassifier(backbone.width, shrinkage, prior, 0.0, loop.linear_head, learner)
        adapter = SharedAndTask(
            backbone,
            loop.linear_head,
            training,
            rank=rank,
            shared_blocks=shared_blocks,
            kd_weight=kd_weight,
            kd_temperature=kd_temperature,
            orthogonality_weight=orthogonality_weight,
        )
        super().__init__(adapter, loop, head, runtime)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        """Rows of the linear head are not used afterwards."""
        self.adapter.known = len(self.classes)
        yield from loop.fit(task, self.adapter, {"factors": self.adapter.lora.open(task.spawn("adapter"))})
        factors = self.adapter.lora.close()
        return Learned(tensors={PREFIX + name: tensor for name, tensor in factors.tensors().items()})


@final
class SharedAndTask(Adapter):
    """The plain backbone, and for each task the shared LoRAs, which are the state, with its own, which are in its entry."""

    known: int
    """Number of classes that were known before the task that is trained."""

    def __init__(
        self,
        backbone: Backbone,
        linear_head: LinearHead,
        training: Training,
        *,
        rank: int,
        shared_blocks: float,
        kd_weight: float,
        kd_temperature: float,
        orthogonality_weight: float,
    ) -> None:
        super().__init__(backbone)
        self.kd_weight, self.kd_temperature = kd_weight, kd_temperature
        self.orthogonality_weight = orthogonality_weight
        self.linear_head, self.precision, self.seed = linear_head, training.precision, training.seed
        blocks = blocks_of(backbone.model)
        if not blocks:
            raise LearnerError(
                f"backbone '{backbone.name}' has no list of equal blocks, whose first ones could be shared"
            )
        count = min(max(round(shared_blocks * len(blocks)), 1), len(blocks) - 1)
        first, self._later = {part for block in blocks[:count] for part in block.modules()}, blocks[count:]
        shared = [name for name in backbone.projections if backbone.model.get_submodule(name) in first]
        own = [name for name in backbone.projections if name not in set(shared)]
        if not shared or not own:
            raise LearnerError(
                f"backbone '{backbone.name}': all modules to adapt are in one half of its blocks; name others in target_modules"
            )
        self.lora = SharedAndTaskLoRA(backbone.model, [*shared, *own], len(shared), rank)

    @property
    def passes(self) -> int:
        """One for the plain backbone and for each task."""
        return 1 + len(self.lora.tasks)

    @property
    def width(self) -> int:
        return self.backbone.width * self.passes

    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        found = [self._pass(encoded)]
        for number in range(len(self.lora.tasks)):
            with self.lora.applied(number):
                found.append(self._pass(encoded))
        return torch.cat(found, dim=1)

    def encode_with_loss(self, encoded: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch width"], Tensor | float]:
        """Features by the LoRAs of the task that is trained, alone."""
        with self.lora.applied_open():
            features = self._pass(encoded)
        if not self.lora.tasks:
            return features, 0.0
        with skipped(self._later):
            with self.lora.applied_shared(old=False):
                now = self._pass(encoded)
            with torch.no_grad(), self.lora.applied_shared(old=True):
                before = self._pass(encoded)
        new, old = (self.linear_head(x)[:, self.known :].float() for x in (now, before))
        divergence = soft_divergence(new, old.detach(), self.kd_temperature)
        return features, self.kd_weight * divergence + self.orthogonality_weight * len(features) * self.lora.overlap()

    def _pass(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        with autocast(self.backbone, self.precision):
            features: Tensor = self.backbone(encoded, self.encoder)
            return features.float()

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        if PREFIX + "weights" in tensors:
            own = {key.removeprefix(PREFIX): t for key, t in tensors.items() if key.startswith(PREFIX)}
            self.lora.append(TaskFactors.from_tensors(own))

    def reset(self) -> None:
        self.known = 0
        self.lora.start(spawn(self.seed, "shared"))

    def state(self) -> dict[str, Tensor]:
        pairs = enumerate(zip(self.lora.up, self.lora.down, strict=True))
        return {
            f"{PREFIX}shared.{p}.{name}": t for p, pair in pairs for name, t in zip(("up", "down"), pair, strict=True)
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        layers = range(len(self.lora.up))
        up, down = ([state[f"{PREFIX}shared.{p}.{name}"] for p in layers] for name in ("up", "down"))
        self.lora.set_shared(up, down)

    def all_tensors(self) -> Iterable[Tensor]:
        own = [tensor for task in self.lora.tasks for tensor in task.tensors().values()]
        return [*self.state().values(), *own]
