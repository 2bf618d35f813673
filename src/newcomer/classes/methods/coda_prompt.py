"""CODA-Prompt: decomposed attention-based prompting (Smith et al., CVPR 2023, arXiv 2211.13218)."""

from collections.abc import Mapping

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.prompt_learner import PromptedLearner
from newcomer.classes.training_loop import Precision, Schedule, Training
from newcomer.errors import SettingError
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.prompts.prompt_components import PARTS, PromptComponents
from newcomer.seeds import spawn
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative, Rate, Share


class CODAPrompt(PromptedLearner):
    """An input's prefix is a sum of components of all tasks, weighed by what the input attends to; a task adds components.

    Nothing is chosen, so that prompts and weights are trained by the cross entropy alone. See `nn.prompts.prompt_components`. The paper
    divides a pool of 100 components among tasks whose number it knows; here every task adds as many.

    - `components`: that each task adds in every layer (paper: 100 for 10 tasks).
    - `length`: rows of a component, half of them keys and half values; an even number (paper: 8).
    - `layers`: prefixes are in so many first layers (paper: 5), or in all of a backbone that has fewer.
    - `orthogonality`: weight of the penalty on components that are not orthonormal (paper: 0.1). The authors' code later left it
      out, as new components start orthogonal.
    - `epochs`, `batch_size`: passes over a task's examples (paper: 20 on CIFAR-100, 50 on ImageNet-R; 128).
    - `learning_rate`: Adam's, for the components (paper: 0.001).
    - `schedule`: of both rates within a task (paper: 'cosine').
    - the other settings are `L2P`'s.

    Raises LearnerError for a backbone whose attention takes no prefixes, SettingError for an odd length.
    """

    name = "coda-prompt"
    fixed = ("length", "layers")

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        components: Count = 10,
        length: Count = 8,
        layers: Count = 5,
        orthogonality: NotNegative = 0.1,
        head: HeadName = "linear",
        shrinkage: Share = 0.3,
        drift_map: bool = False,
        epochs: Count = 20,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 0.001,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "cosine",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        if length % 2:
            raise SettingError(f"CODAPrompt: length = {length} has no half; give an even number")
        super().__init__(
            backbone,
            training=Training(
                epochs=epochs,
                batch_size=batch_size,
                accumulate=accumulate,
                learning_rate=learning_rate,
                head_learning_rate=head_learning_rate,
                schedule=schedule,
                augment=augment,
                precision=precision,
                seed=seed,
            ),
            head=head,
            shrinkage=shrinkage,
            drift_map=drift_map,
            cache_gib=cache_gib,
            device=device,
        )
        self.components, self.orthogonality = components, orthogonality
        self.prompts: PromptComponents = PromptComponents(
            min(layers, len(self.attentions)), length, self.backbone.width, self.attentions[0].width
        ).to(self.device)
        self._begin()

    def _prompted(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        penalty = self.orthogonality * self.prompts.penalty() if torch.is_grad_enabled() else query.new_zeros(())
        return self._prefixed(encoded, dict(enumerate(self.prompts(query)))), penalty.expand(len(query))

    def _open(self, stage: str) -> None:
        self.prompts.open(self.components, spawn(self.training.seed, stage, "prompts"))

    def _close(self) -> None:
        self.prompts.close()

    def _clear(self) -> None:
        super()._clear()
        self.prompts.clear()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = super()._tensors()
        kept = sum(entry.tensors["prompts.key"].shape[1] for entry in self.entries if "prompts.key" in entry.tensors)
        if self.prompts.components > kept:
            tensors |= {f"prompts.{name}": getattr(self.prompts, name)[:, kept:] for name in PARTS}
        return tensors

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        if "prompts.key" in entry.tensors:
            self.prompts.append({name: entry.tensors[f"prompts.{name}"] for name in PARTS})
