"""L2P: learning to prompt (Wang et al., CVPR 2022, arXiv 2112.08654)."""

from collections.abc import Mapping
from typing import Any, final

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Classifier, Runtime, Training
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.parts import Steps, Task, autocast
from newcomer.classes.prompt_adapter import PromptAdapter, attentions, layer_of
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import LearnerError, SettingError
from newcomer.nn.prompts.prefixes import prepended
from newcomer.nn.prompts.prompt_pool import PromptPool
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, NotNegative


class L2P(ClassLearner):
    """Each input gets the prompts of a shared pool whose keys are nearest to its frozen feature; all tasks train the same pool.

    Prompts are prepended to the tokens, and the feature is the mean of the last layer's outputs at their positions. See
    `nn.prompts.prompt_pool`. As in the paper each example has its own prompts; the authors' code gives a whole batch the prompts
    that most of it selects, so a prediction depends on the batch. Their code also adds position embeddings to prompts; here
    prompts enter after them.

    - `pool_size`, `prompt_length`: prompts in the pool, tokens of each (paper: 10, 5).
    - `top_k`: prompts an input gets (paper: 5).
    - `key_loss_weight`: of the selected keys' distances in the loss (paper: 0.5; the authors' code: 1).
    - `classifier`, `training`, `runtime`: see `classes.configuration` (paper: 5 epochs, batches of 128, learning rate 0.03, the
      linear head).

    Raises LearnerError for a decoder and for a backbone whose layers take no prompts, SettingError for a `top_k` above `pool_size`.
    """

    name = "l2p"
    fixed_settings = ("pool_size", "prompt_length", "top_k")
    adapter: "PooledPrompts"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        pool_size: Count = 10,
        prompt_length: Count = 5,
        top_k: Count = 5,
        key_loss_weight: NotNegative = 0.5,
        classifier: Classifier = Classifier(drift_map=False),
        training: Training = Training(epochs=5, learning_rate=0.03),
        runtime: Runtime = Runtime(),
        **settings: Any,
    ) -> None:
        if top_k > pool_size:
            raise SettingError(f"L2P: top_k = {top_k}, but the pool has {pool_size} prompts; give at most that")
        backbone = open_backbone(backbone, runtime)
        loop = TrainingLoop(backbone, training, runtime)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        adapter = PooledPrompts(backbone, training, pool_size, prompt_length, top_k, key_loss_weight)
        super().__init__(adapter, loop, head, runtime)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        return self.adapter.train(task, loop)


@final
class PooledPrompts(PromptAdapter):
    """The pool, which all tasks share."""

    prompts: PromptPool

    def __init__(
        self, backbone: Backbone, training: Training, size: int, length: int, top_k: int, key_loss_weight: float
    ) -> None:
        super().__init__(backbone, training)
        if backbone.is_causal:
            raise LearnerError(
                f"L2P reads the states of its prompts, which in a decoder ('{backbone.name}') do not see the text after them;"
                " give another method or backbone"
            )
        self.top_k, self.key_loss_weight = top_k, key_loss_weight
        self.first_layer = layer_of(backbone.model, list(attentions(backbone.model)))
        self.prompts = PromptPool(size, length, backbone.width, backbone.width).to(backbone.device)
        self._require_effect()

    def features_with_prompts(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        rows, distance = self.prompts(query, self.top_k)
        with prepended(self.first_layer, self.attentions, rows), autocast(self.backbone, self.precision):
            states: Tensor = self.backbone.output(encoded).last_hidden_state
        return states[:, : rows.shape[1]].mean(1), self.key_loss_weight * distance

    def open(self, generator: torch.Generator) -> None:
        """Nothing to add: every task trains the same pool."""

    def close(self) -> dict[str, Tensor]:
        return {}

    def reset(self) -> None:
        self.prompts.draw(spawn(self.seed, "prompts"))

    def state(self) -> dict[str, Tensor]:
        return {f"prompts.{key}": t for key, t in self.prompts.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.prompts.load_state_dict({key: state[f"prompts.{key}"] for key in self.prompts.state_dict()})
