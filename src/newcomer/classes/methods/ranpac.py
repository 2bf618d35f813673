"""RanPAC: random projections and a ridge regression that is solved anew (McDonnell et al., NeurIPS 2023, arXiv 2307.02251)."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.direction_learner import DirectionLearner
from newcomer.classes.training_loop import Precision, Schedule, Training
from newcomer.errors import LearnerError
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.head import Found
from newcomer.nn.heads.random_features import RidgeSums, chosen_ridge, spread_out
from newcomer.seeds import spawn
from newcomer.settings import checked
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative, Rate, Share

PREFIX = "ranpac."


class RanPAC(DirectionLearner):
    """A frozen encoder whose features a random projection spreads out, and a ridge regression on all examples that reads them.

    See `nn.heads.random_features`. The order of tasks does not matter, but for the ridge, which the last lesson chose. Novelty is told
    from the features themselves, as of every learner. Its head is not linear in them, so a model cannot be exported.

    - `projection`: how many numbers features are spread over (paper: 10,000). A stage keeps a matrix of so many rows and columns.
    - `first_task`: 'lora' adapts to the first lesson by one LoRA, which is frozen from there on (the paper's first-session
      adaptation, there by one of three other kinds of adapter); 'none' adapts to nothing.
    - the other settings are `SDLoRA`'s, for the first lesson.
    """

    name = "ranpac"

    spread: Float[Tensor, "width wide"]
    """R: drawn before anything is learned, and kept by the first entry."""
    sums: RidgeSums
    ridge: float
    """λ, as the last lesson that had a second example of a class chose it."""
    temperature: float
    """What logits are divided by: the geometric mean of the lessons' own, each weighed by its held-out examples."""
    told: int
    """On how many held-out examples it rests."""
    _solved: tuple[RidgeSums, Tensor] | None

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        projection: Count = 2000,
        first_task: Literal["none", "lora"] = "none",
        rank: Count = 10,
        shrinkage: Share = 0.3,
        epochs: Count = 20,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 0.008,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "constant",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        compile: bool = False,
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.wide, self.first_task, self.rank = projection, first_task, rank
        super().__init__(
            backbone,
            magnitudes="shared",
            loss_over="new",
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
            head="ridge",
            shrinkage=shrinkage,
            drift_map=False,
            compile=compile,
            cache_gib=cache_gib,
            device=device,
        )

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The factors of the first lesson's LoRA, and the rows that are trained along with it and then read by nobody."""
        return {name: group for name, group in super().trainable().items() if name != "magnitudes"}

    def folded_head(self) -> Found:
        """Raises LearnerError: there is none."""
        self._require_classes()
        raise LearnerError("RanPAC's head is not linear in the backbone's features, so it cannot be exported")

    def encoder_weights(self) -> dict[str, Tensor]:
        """Raises LearnerError, as `folded_head` does."""
        self.folded_head()
        return {}

    def _moves(self) -> bool:
        return self.first_task == "lora" and not any(entry.facts["what"] == "learn" for entry in self.entries)

    def _open(self, stage: str) -> None:
        self.bank.open(self.rank, spawn(self.training.seed, stage, "direction"))

    def _logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch klass"]:
        self._require_classes()
        return F.linear(spread_out(features, self.spread), self._weight())

    def _weight(self) -> Float[Tensor, "klass wide"]:
        solved = self._solved
        if solved is None or solved[0] is not self.sums:
            solved = self._solved = self.sums, self.sums.solved(self.ridge) / self.temperature
        return solved[1]

    def _fitted(self) -> dict[str, Tensor]:
        return {PREFIX + "weight": self._weight()} if self.classes else {}

    def _remember(self, features: Float[Tensor, "batch width"], klass: Int[Tensor, " batch"]) -> None:
        super()._remember(features, klass)
        h = spread_out(features, self.spread)
        self.sums = self.sums.joined(h, klass)
        number = torch.unique(klass, return_inverse=True)[1]
        chosen = chosen_ridge(h, number)
        self.learned.pop("held-out accuracy", None)  # it was that of a ridge on the features themselves
        if chosen is not None:
            self.ridge, said, wanted = chosen
            found = temperature(said, wanted)
            self.told, before = self.told + len(wanted), self.told
            self.temperature = math.exp(
                (before * math.log(self.temperature) + len(wanted) * math.log(found)) / self.told
            )
            self.learned |= {
                "ridge": self.ridge,
                "held-out accuracy": float((said.argmax(1) == wanted).double().mean()),
            }

    def _head_flops(self) -> int:
        return 2 * self.wide * (self.backbone.width + len(self.classes))

    def _stored(self) -> Iterable[Tensor]:
        return [*super()._stored(), self.spread, self.sums.gram, self.sums.by_class]

    def _keep(self, classes: list[int]) -> None:
        super()._keep(classes)
        self.sums = self.sums.at(classes)

    def _clear(self) -> None:
        super()._clear()
        chance = spawn(self.training.seed, "random projection")
        self.spread = torch.randn(self.backbone.width, self.wide, generator=chance)
        self.sums = RidgeSums.empty(self.wide)
        self.ridge, self.temperature, self.told = 0.0, 1.0, 0
        self._solved = None

    def _tensors(self) -> dict[str, Tensor]:
        numbers = torch.tensor([self.ridge, self.temperature, self.told], dtype=torch.float64)
        own = {"gram": self.sums.gram, "by_class": self.sums.by_class, "numbers": numbers}
        if not self.entries:
            own["spread"] = self.spread
        return {**super()._tensors(), **{PREFIX + name: tensor for name, tensor in own.items()}}

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        own = {key.removeprefix(PREFIX): t for key, t in entry.tensors.items() if key.startswith(PREFIX)}
        self.spread = own.get("spread", self.spread)
        self.sums = RidgeSums(own["gram"], own["by_class"])
        self.ridge, self.temperature, told = own["numbers"].tolist()
        self.told = int(told)
        if "weight" in own:
            self._solved = self.sums, own["weight"]
