"""CODA-Prompt: decomposed attention-based prompting (Smith et al., CVPR 2023, arXiv 2211.13218)."""

from collections.abc import Mapping
from typing import Any, final

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Classifier, Runtime, Training
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.parts import Steps, Task
from newcomer.classes.prompt_adapter import PromptAdapter
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import SettingError
from newcomer.nn.prompts.prompt_components import PARTS, PromptComponents
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, NotNegative


class CODAPrompt(ClassLearner):
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
    adapter: "Components"

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
        backbone = open_backbone(backbone, runtime)
        loop = TrainingLoop(backbone, training, runtime)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        super().__init__(
            Components(backbone, training, components, prompt_length, layers, orthogonality_weight), loop, head, runtime
        )

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        return self.adapter.train(task, loop)


@final
class Components(PromptAdapter):
    """The components of all tasks, each in its task's entry."""

    prompts: PromptComponents

    def __init__(
        self, backbone: Backbone, training: Training, components: int, length: int, layers: int, weight: float
    ) -> None:
        """`components`: added by each task in every layer; `weight`: of the penalty."""
        super().__init__(backbone, training)
        self.components, self.orthogonality_weight = components, weight
        layers, width = min(layers, len(self.attentions)), self.attentions[0].width
        self.prompts = PromptComponents(layers, length, backbone.width, width).to(backbone.device)
        self._require_effect()

    def features_with_prompts(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        penalty = self.orthogonality_weight * self.prompts.penalty() if torch.is_grad_enabled() else query.new_zeros(())
        return self.features_with_prefixes(encoded, dict(enumerate(self.prompts(query)))), penalty.expand(len(query))

    def open(self, generator: torch.Generator) -> None:
        self.prompts.open(self.components, generator)

    def close(self) -> dict[str, Tensor]:
        before = self.prompts.components
        self.prompts.close()
        return {f"prompts.{name}": getattr(self.prompts, name)[:, before:] for name in PARTS}

    def reset(self) -> None:
        self.prompts.clear()

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        if "prompts.key" in tensors:
            self.prompts.append({name: tensors[f"prompts.{name}"] for name in PARTS})

    def state(self) -> dict[str, Tensor]:
        """None: tasks add their components."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """There is no state."""
