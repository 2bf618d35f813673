"""L2P: learning to prompt (Wang et al., CVPR 2022, arXiv 2112.08654)."""

from collections.abc import Mapping

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.prompt_learner import PromptedLearner, attentions, layer_of
from newcomer.classes.training_loop import Precision, Schedule, Training
from newcomer.errors import SettingError
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.prompts.prefixes import prepended
from newcomer.nn.prompts.prompt_pool import PromptPool
from newcomer.seeds import spawn
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative, Rate, Share


class L2P(PromptedLearner):
    """Every input is given the prompts of a pool whose keys are nearest to its frozen feature; all tasks train on the one pool.

    The prompts come before the input's own tokens, and the feature is the mean of the last layer's outputs at their places. See
    `nn.prompts.prompt_pool`. Here as in the paper each example has prompts of its own; the authors' code gives all of a batch the
    prompts that most of it ask for, which makes an answer depend on its neighbours. Their code adds position embeddings to
    prompts, too; here prompts enter after them.

    - `pool`, `length`: prompts in the pool, rows of each (paper: 10, 5).
    - `chosen`: prompts that an input is given (paper: 5).
    - `pull`: weight of the chosen keys' distances in the loss (paper: 0.5; the authors' code: 1).
    - `head`: what reads the features, see `nn.heads`; 'linear', the trained rows, is the paper's.
    - `shrinkage`: of covariances towards a multiple of the identity, for heads and novelty.
    - `drift_map`: carry the statistics of old classes over to the prompts after each task (`nn.features.drift_map`).
    - `epochs`, `batch_size`: passes over a task's examples (paper: 5, 128).
    - `accumulate`: parts of a batch whose gradients are taken one after the other; more parts, less memory, the same step. Texts
      of like length share a part: more parts, less padding, which on CPUs is time saved.
    - `learning_rate`: Adam's, for keys and prompts (paper: 0.03).
    - `head_learning_rate`: for the trained rows; the same by default.
    - `schedule`: of both rates within a task.
    - `augment`: of training pictures, 'flip' or 'crop' (and flip).
    - `precision`: 'fp32', or 'bf16' for mixed precision in training and inference.
    - `cache_gib`: memory for decoded training pictures.
    - `seed`: of the start of keys and prompts and the order of examples.
    - `device`: 'cpu', 'cuda', …; a GPU if there is one by default.

    Raises LearnerError for a backbone whose layers take no prompts, SettingError where more are chosen than there are.
    """

    name = "l2p"
    fixed = ("pool", "length", "chosen")

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        pool: Count = 10,
        length: Count = 5,
        chosen: Count = 5,
        pull: NotNegative = 0.5,
        head: HeadName = "linear",
        shrinkage: Share = 0.3,
        drift_map: bool = False,
        epochs: Count = 5,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 0.03,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "constant",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        if chosen > pool:
            raise SettingError(f"L2P: chosen = {chosen}, but the pool has {pool} prompts; give at most that")
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
        self.chosen, self.pull = chosen, pull
        self.first = layer_of(self.backbone.model, list(attentions(self.backbone.model)))
        self.prompts: PromptPool = PromptPool(pool, length, self.backbone.width, self.backbone.width).to(self.device)
        self._begin()

    def _prompted(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        rows, distance = self.prompts(query, self.chosen)
        options = {"interpolate_pos_encoding": True} if self.backbone.resized else {}
        with prepended(self.first, self.attentions, rows), self._precision():
            states: Tensor = self.backbone.model(**encoded, **options).last_hidden_state
        return states[:, : rows.shape[1]].mean(1), self.pull * distance

    def _open(self, stage: str) -> None:
        """Nothing is opened: every task trains the same pool on."""

    def _close(self) -> None:
        """Nor closed."""

    def _clear(self) -> None:
        super()._clear()
        self.prompts.draw(spawn(self.training.seed, "prompts"))

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), **{f"prompts.{key}": t for key, t in self.prompts.state_dict().items()}}

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        self.prompts.load_state_dict({key: entry.tensors[f"prompts.{key}"] for key in self.prompts.state_dict()})
