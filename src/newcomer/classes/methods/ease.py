"""EASE: expandable subspace ensemble (Zhou et al., CVPR 2024, arXiv 2403.12030)."""

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
from newcomer.nn.heads.head import Prior
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, NotNegative, Share

PREFIX = "ease."


class EASE(ClassLearner):
    """Each task trains an adapter of its own; the features of all are side by side, and a class is its mean in each of them.

    Means of old classes in a new adapter's subspace are synthesized from those of the new classes (`nn.heads.subspaces`). Nothing
    trained is changed later. A prediction takes a pass for the plain backbone and for every task, and a model cannot be exported.

    Departures from the paper: the adapters are LoRAs of the query and value projections, there bottlenecks beside the MLP; the
    plain backbone's features are one more subspace, the own one of classes that came without training; the softmax of the
    similarities and the logits are those of the authors' code (LAMDA-PILOT).

    - `rank`: of each task's LoRA.
    - `alpha`: α, weight of the mean cosine in the other subspaces (paper: 0.1).
    - `shrinkage`: of covariances, for novelty scores, which use the plain backbone's features.
    - `prior`: 'uniform' or 'empirical', see `classes.configuration.Classifier`.
    - `training`, `runtime`: see `classes.configuration` (paper: 20 epochs, SGD).
    """

    name = "ease"
    adapter: "TaskAdapters"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        alpha: NotNegative = 0.1,
        shrinkage: Share = 0.3,
        prior: Prior = "uniform",
        training: Training = Training(learning_rate=2e-3),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        backbone = open_backbone(backbone, runtime)
        adapter = TaskAdapters(backbone, rank, training.precision, type(self).__name__)
        loop = TrainingLoop(backbone, training, runtime)
        head = SubspaceClassifier(backbone.width, shrinkage, prior, alpha, loop.linear_head, type(self).__name__)
        super().__init__(adapter, loop, head, runtime)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        """One LoRA, with rows of a linear head that are not used afterwards."""
        yield from loop.fit(task, self.adapter, {"factors": self.adapter.open(task.spawn("adapter"))})
        return Learned(tensors=self.adapter.close())


@final
class TaskAdapters(Adapter):
    """The plain backbone and one LoRA a task, each task's in its entry."""

    adapters: list[DecoupledLoRA]
    """Of the tasks, each of one direction and magnitude 1."""
    training: DecoupledLoRA | None
    """That of the task that is trained."""

    def __init__(self, backbone: Backbone, rank: int, precision: str, learner: str) -> None:
        super().__init__(backbone)
        self.rank, self.precision = rank, precision
        low_rank_updates(backbone, rank, learner)  # refuses what it cannot adapt

    @property
    def width(self) -> int:
        return self.backbone.width * self.subspaces

    @property
    def subspaces(self) -> int:
        """Number of subspaces: the plain backbone's and the tasks'."""
        return 1 + len(self.adapters)

    @property
    def passes(self) -> int:
        return self.subspaces

    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        with autocast(self.backbone, self.precision):
            found = [self.backbone(encoded, self.encoder).float()]
            for lora in self.adapters:
                with lora.applied():
                    found.append(self.backbone(encoded, self.encoder).float())
        return torch.cat(found, dim=1)

    def encode_with_loss(self, encoded: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch width"], float]:
        """Features by the adapter that is trained, alone."""
        assert self.training is not None
        with self.training.applied(), autocast(self.backbone, self.precision):
            features: Tensor = self.backbone(encoded, self.encoder)
            return features.float(), 0.0

    def open(self, generator: torch.Generator) -> list[torch.nn.Parameter]:
        """Begin a task's adapter; returns its parameters."""
        self.training = self._blank()
        self.training.open(self.rank, generator)
        return [*self.training.open_up, *self.training.open_down]

    def close(self) -> dict[str, Tensor]:
        """End a task's adapter; returns its tensors."""
        assert self.training is not None
        self.training.close()  # an update whose norm is not finite gives features that are not
        factors = [self.training.terms(p) for p in range(len(self.backbone.projections))]
        self.training = None
        tensors = {
            f"{PREFIX}{p}.{name}": t.detach().cpu()
            for p, pair in enumerate(factors)
            for name, t in zip(("up", "down"), pair, strict=True)
        }
        self.add(tensors)
        return tensors

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        if f"{PREFIX}0.up" in tensors:
            lora = self._blank()
            count = len(self.backbone.projections)
            lora.append([(tensors[f"{PREFIX}{p}.up"], tensors[f"{PREFIX}{p}.down"]) for p in range(count)])
            lora.set_magnitudes(torch.ones(1, 1))
            self.adapters.append(lora)

    def _blank(self) -> DecoupledLoRA:
        return DecoupledLoRA(self.backbone.model, self.backbone.projections)

    def reset(self) -> None:
        self.adapters, self.training = [], None

    def state(self) -> dict[str, Tensor]:
        """None: tasks add their adapters."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """There is no state."""

    def all_tensors(self) -> Iterable[Tensor]:
        return [factor for lora in self.adapters for factor in (*lora.up, *lora.down)]
