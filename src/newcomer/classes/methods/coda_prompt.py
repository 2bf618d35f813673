"""CODA-Prompt: decomposed attention-based prompting (Smith et al., CVPR 2023, arXiv 2211.13218)."""

from collections.abc import Mapping
from typing import Any

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, Runtime, Training
from newcomer.classes.prompt_learner import PromptLearner
from newcomer.errors import SettingError
from newcomer.nn.prompts.prompt_components import PARTS, PromptComponents
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative


class CODAPrompt(PromptLearner):
    """An input's prefix is a weighted sum of all tasks' components, weighted by attention to its query; each task adds components.

    No prompt is selected, so prompts and weights are trained by the cross entropy alone. See `nn.prompts.prompt_components`. The
    paper divides a pool of 100 components among a known number of tasks; here every task adds the same number.

    - `components`: added by each task in every layer (paper: 100 for 10 tasks).
    - `prompt_length`: rows of a component, half of them keys and half values; an even number (paper: 8).
    - `layers`: number of first layers with prefixes (paper: 5), or all of a shallower backbone.
    - `orthogonality_weight`: of the penalty on components that are not orthonormal (paper: 0.1). The authors' code later dropped
      it, because new components are initialized orthogonal.
    - `classifier`, `training`, `runtime`: see `classes.configuration` (paper: 20 epochs on CIFAR-100, 50 on ImageNet-R; batches of
      128; learning rate 0.001, cosine schedule).

    Raises LearnerError for a backbone whose attention takes no prefixes, SettingError for an odd length.
    """

    name = "coda-prompt"
    fixed_settings = ("prompt_length", "layers")

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        components: Count = 10,
        prompt_length: Count = 8,
        layers: Count = 5,
        orthogonality_weight: NotNegative = 0.1,
        classifier: Classifier = Classifier(drift_map=False),
        training: Training = Training(learning_rate=0.001, schedule="cosine"),
        runtime: Runtime = Runtime(),
        **settings: Any,
    ) -> None:
        if prompt_length % 2:
            raise SettingError(f"CODAPrompt: prompt_length = {prompt_length} is odd; give an even number")
        super().__init__(backbone, training=training, classifier=classifier, runtime=runtime)
        self.components, self.orthogonality_weight = components, orthogonality_weight
        self.prompts: PromptComponents = PromptComponents(
            min(layers, len(self.attentions)), prompt_length, self.backbone.width, self.attentions[0].width
        ).to(self.device)
        self._initialize()

    def _features_with_prompts(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        penalty = self.orthogonality_weight * self.prompts.penalty() if torch.is_grad_enabled() else query.new_zeros(())
        return self._features_with_prefixes(encoded, dict(enumerate(self.prompts(query)))), penalty.expand(len(query))

    def _begin_task(self, stage: str) -> None:
        self.prompts.open(self.components, spawn(self.training.seed, stage, "prompts"))

    def _end_task(self) -> None:
        self.prompts.close()

    def _reset(self) -> None:
        super()._reset()
        self.prompts.clear()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = super()._tensors()
        stored = sum(entry.tensors["prompts.key"].shape[1] for entry in self.entries if "prompts.key" in entry.tensors)
        if self.prompts.components > stored:
            tensors |= {f"prompts.{name}": getattr(self.prompts, name)[:, stored:] for name in PARTS}
        return tensors

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        if "prompts.key" in entry.tensors:
            self.prompts.append({name: entry.tensors[f"prompts.{name}"] for name in PARTS})
