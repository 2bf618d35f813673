"""DualPrompt: complementary prompting (Wang et al., ECCV 2022, arXiv 2204.04799)."""

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
from newcomer.nn.prompts.expert_prompts import ExpertPrompts
from newcomer.nn.prompts.prefixes import Prefix
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, NotNegative


class DualPrompt(ClassLearner):
    """A general prefix trained by all tasks, and an expert prefix a task; an input gets the expert with the nearest key.

    While a task is trained its examples get its own expert. See `nn.prompts.expert_prompts`. As in the authors' code a new expert
    is initialized with the last one, and a prompt's length counts keys; it has as many values. There the number of tasks is known
    beforehand; here each task adds an expert.

    - `general_length`, `expert_length`: keys of the two prefixes (paper: 5, 20; the authors' code for CIFAR-100: 5, 5).
    - `general_layers`, `expert_layers`: number of first layers with the general prefix, and of layers after them with experts
      (paper: 2, 3); a shallower backbone has them in the layers that it has, experts at least in the last.
    - `key_loss_weight`: of the distance between a task's key and its queries in the loss (the authors' code: 1).
    - `classifier`, `training`, `runtime`: see `classes.configuration` (paper: 5 epochs on CIFAR-100, 50 on ImageNet-R; batches of
      128; learning rate 0.005).

    Raises LearnerError for a backbone whose attention takes no prefixes.
    """

    name = "dual-prompt"
    fixed_settings = ("general_length", "expert_length", "general_layers", "expert_layers")
    adapter: "GeneralAndExperts"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        general_length: Count = 5,
        expert_length: Count = 20,
        general_layers: Count = 2,
        expert_layers: Count = 3,
        key_loss_weight: NotNegative = 1.0,
        classifier: Classifier = Classifier(drift_map=False),
        training: Training = Training(epochs=5, learning_rate=0.005),
        runtime: Runtime = Runtime(),
        **settings: Any,
    ) -> None:
        backbone = open_backbone(backbone, runtime)
        general, expert = (general_layers, general_length), (expert_layers, expert_length)
        loop = TrainingLoop(backbone, training, runtime)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        super().__init__(GeneralAndExperts(backbone, training, general, expert, key_loss_weight), loop, head, runtime)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        return self.adapter.train(task, loop)


@final
class GeneralAndExperts(PromptAdapter):
    """The general prefix, which is in every entry, and the experts, each in its task's entry."""

    prompts: ExpertPrompts

    def __init__(
        self, backbone: Backbone, training: Training, general: tuple[int, int], expert: tuple[int, int], weight: float
    ) -> None:
        """`general` and `expert`: number of layers and length; `weight`: of the key loss."""
        super().__init__(backbone, training)
        self.key_loss_weight, depth = weight, len(self.attentions)
        self.general_layers = range(min(general[0], depth))
        self.expert_layers = range(min(general[0], depth - 1), min(general[0] + expert[0], depth))
        sizes = (len(self.general_layers), general[1]), (len(self.expert_layers), expert[1])
        self.prompts = ExpertPrompts(*sizes, backbone.width, self.attentions[0].width).to(backbone.device)
        self._require_effect()

    def features_with_prompts(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        general, experts, distance = self.prompts(query)
        prefixes: dict[int, Prefix] = dict(zip(self.general_layers, general, strict=True))
        for layer, expert in zip(self.expert_layers, experts, strict=False):  # empty before the first task
            prefixes[layer] = prefixes[layer] + expert if layer in prefixes else expert
        return self.features_with_prefixes(encoded, prefixes), self.key_loss_weight * distance

    def open(self, generator: torch.Generator) -> None:
        self.prompts.open(generator)

    def close(self) -> dict[str, Tensor]:
        self.prompts.close()
        return {"prompts.key": self.prompts.keys[-1], "prompts.expert": self.prompts.experts[-1]}

    def reset(self) -> None:
        self.prompts.draw(spawn(self.seed, "prompts"))

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        if "prompts.key" in tensors:
            self.prompts.append(tensors["prompts.key"], tensors["prompts.expert"])

    def state(self) -> dict[str, Tensor]:
        return {"prompts.general": self.prompts.general}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.prompts.load_state_dict({"general": state["prompts.general"]}, strict=False)
