"""DualPrompt: complementary prompting (Wang et al., ECCV 2022, arXiv 2204.04799)."""

from collections.abc import Mapping
from typing import Any

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, Runtime, Training
from newcomer.classes.prompt_learner import PromptLearner
from newcomer.nn.prompts.expert_prompts import ExpertPrompts
from newcomer.nn.prompts.prefixes import Prefix
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative


class DualPrompt(PromptLearner):
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
        super().__init__(backbone, training=training, classifier=classifier, runtime=runtime)
        self.key_loss_weight, depth = key_loss_weight, len(self.attentions)
        self.general_layers = range(min(general_layers, depth))
        self.expert_layers = range(min(general_layers, depth - 1), min(general_layers + expert_layers, depth))
        self.prompts: ExpertPrompts = ExpertPrompts(
            (len(self.general_layers), general_length),
            (len(self.expert_layers), expert_length),
            self.backbone.width,
            self.attentions[0].width,
        ).to(self.device)
        self._initialize()

    def _features_with_prompts(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        general, experts, distance = self.prompts(query)
        prefixes: dict[int, Prefix] = dict(zip(self.general_layers, general, strict=True))
        for layer, expert in zip(self.expert_layers, experts, strict=False):  # empty before the first task
            prefixes[layer] = prefixes[layer] + expert if layer in prefixes else expert
        return self._features_with_prefixes(encoded, prefixes), self.key_loss_weight * distance

    def _begin_task(self, stage: str) -> None:
        self.prompts.open(spawn(self.training.seed, stage, "prompts"))

    def _end_task(self) -> None:
        self.prompts.close()

    def _reset(self) -> None:
        super()._reset()
        self.prompts.draw(spawn(self.training.seed, "prompts"))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {**super()._tensors(), "prompts.general": self.prompts.general}
        if self.prompts.tasks > sum("prompts.key" in entry.tensors for entry in self.entries):
            tensors |= {"prompts.key": self.prompts.keys[-1], "prompts.expert": self.prompts.experts[-1]}
        return tensors

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        tensors = entry.tensors
        self.prompts.load_state_dict({"general": tensors["prompts.general"]}, strict=False)
        if "prompts.key" in tensors:
            self.prompts.append(tensors["prompts.key"], tensors["prompts.expert"])
