"""DualPrompt: complementary prompting (Wang et al., ECCV 2022, arXiv 2204.04799)."""

from collections.abc import Mapping

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.prompt_learner import PromptedLearner
from newcomer.classes.training_loop import Precision, Schedule, Training
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.prompts.expert_prompts import ExpertPrompts
from newcomer.nn.prompts.prefixes import Prefix
from newcomer.seeds import spawn
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative, Rate, Share


class DualPrompt(PromptedLearner):
    """A general prefix that all tasks train, and an expert prefix a task; an input is given the expert with the nearest key.

    While a task is taught its examples have its own expert. See `nn.prompts.expert_prompts`. As in the authors' code an expert starts
    where the last one ended, and a prompt's length counts keys; it has as many values. There the number of tasks is known
    beforehand; here each adds an expert.

    - `general_length`, `expert_length`: keys of the two prefixes (paper: 5, 20; the authors' code for CIFAR-100: 5, 5).
    - `general_layers`, `expert_layers`: the general prefix is in so many first layers, the experts in so many after them (paper:
      2, 3). Of a backbone that has fewer, in those that there are, the experts at least in the last.
    - `pull`: weight of the distance of a task's key from its examples in the loss (the authors' code: 1).
    - `epochs`, `batch_size`: passes over a task's examples (paper: 5 on CIFAR-100, 50 on ImageNet-R; 128).
    - `learning_rate`: Adam's, for keys and prefixes (paper: 0.005).
    - the other settings are `L2P`'s.

    Raises LearnerError for a backbone whose attention takes no prefixes.
    """

    name = "dual-prompt"
    fixed = ("general_length", "expert_length", "general_layers", "expert_layers")

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        general_length: Count = 5,
        expert_length: Count = 20,
        general_layers: Count = 2,
        expert_layers: Count = 3,
        pull: NotNegative = 1.0,
        head: HeadName = "linear",
        shrinkage: Share = 0.3,
        drift_map: bool = False,
        epochs: Count = 5,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 0.005,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "constant",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
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
        self.pull, depth = pull, len(self.attentions)
        self.general_layers = range(min(general_layers, depth))
        self.expert_layers = range(min(general_layers, depth - 1), min(general_layers + expert_layers, depth))
        self.prompts: ExpertPrompts = ExpertPrompts(
            (len(self.general_layers), general_length),
            (len(self.expert_layers), expert_length),
            self.backbone.width,
            self.attentions[0].width,
        ).to(self.device)
        self._begin()

    def _prompted(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        general, experts, distance = self.prompts(query)
        prefixes: dict[int, Prefix] = dict(zip(self.general_layers, general, strict=True))
        for layer, expert in zip(self.expert_layers, experts, strict=False):  # there are none before the first task
            prefixes[layer] = prefixes[layer] + expert if layer in prefixes else expert
        return self._prefixed(encoded, prefixes), self.pull * distance

    def _open(self, stage: str) -> None:
        self.prompts.open(spawn(self.training.seed, stage, "prompts"))

    def _close(self) -> None:
        self.prompts.close()

    def _clear(self) -> None:
        super()._clear()
        self.prompts.draw(spawn(self.training.seed, "prompts"))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {**super()._tensors(), "prompts.general": self.prompts.general}
        if self.prompts.tasks > sum("prompts.key" in entry.tensors for entry in self.entries):
            tensors |= {"prompts.key": self.prompts.keys[-1], "prompts.expert": self.prompts.experts[-1]}
        return tensors

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        tensors = entry.tensors
        self.prompts.load_state_dict({"general": tensors["prompts.general"]}, strict=False)
        if "prompts.key" in tensors:
            self.prompts.append(tensors["prompts.key"], tensors["prompts.expert"])
