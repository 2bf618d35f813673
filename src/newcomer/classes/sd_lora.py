"""SD-LoRA: scalable decoupled low-rank adaptation (Wu et al., ICLR 2025, arXiv 2501.13198)."""

from newcomer.classes.adapted import AdaptedLearner, Schedule
from newcomer.classes.backbone import Backbone
from newcomer.data.examples import Examples
from newcomer.nn.decoupled_lora import Sharing
from newcomer.seeds import spawn
from newcomer.settings import Json, checked
from newcomer.shapes import Tensor
from newcomer.store.folder import Entry
from newcomer.streams.stage import Stage
from newcomer.training.settings import Count, Rate


class SDLoRA(AdaptedLearner):
    """Each task adds one low-rank direction of unit norm, frozen afterwards, and trains the magnitudes of all of them.

    At inference the update folds into the weights: one pass of the plain backbone, all classes' logits, no task identity; no
    example is stored. See `nn.decoupled_lora` for the equations and for the one place where they depart from the paper.

    - `rank`: of each task's direction (paper: 10).
    - `magnitudes`: 'shared', one number a task for all adapted projections (the paper), or one for each 'projection'.
    - `epochs`, `batch_size`: passes over a task's examples (paper: 20, 128).
    - `learning_rate`: Adam's, for the factors of the new direction (paper: 0.008).
    - `head_learning_rate`: for the head and the magnitudes; the same by default.
    - `schedule`: of both rates within a task.
    - `seed`: of the start of directions and the order of examples.
    - `device`: 'cpu', 'cuda', …; a GPU if there is one by default.
    """

    name = "sd-lora"

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        magnitudes: Sharing = "shared",
        epochs: Count = 20,
        batch_size: Count = 128,
        learning_rate: Rate = 0.008,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "constant",
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            backbone,
            magnitudes=magnitudes,
            loss_over="new",
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            head_learning_rate=head_learning_rate,
            schedule=schedule,
            seed=seed,
            device=device,
        )
        self.rank = rank

    def facts(self) -> dict[str, Json]:
        """`magnitudes`: α after the last stage, one row a task; `ranks`: of the directions."""
        return {"magnitudes": self.bank.magnitudes.detach().cpu().tolist(), "ranks": self.bank.ranks}

    def _open(self, stage: str) -> None:
        self.bank.open(self.rank, spawn(self.seed, stage, "direction"))

    def _close(self) -> None:
        self.bank.close()

    def _entry(self, stage: Stage[Examples, Examples]) -> Entry:
        """The task's direction; all magnitudes and the head as they are now; the names of all classes."""
        tensors: dict[str, Tensor] = {
            "magnitudes": self.bank.magnitudes,
            "head.weight": self.head.weight,
            "head.bias": self.head.bias,
        }
        for p, (up, down) in enumerate(self.bank.direction(self.bank.tasks - 1)):
            tensors |= {f"direction.{p}.up": up, f"direction.{p}.down": down}
        return Entry(
            stage.name, {key: t.detach().clone() for key, t in tensors.items()}, {"classes": list(self.classes)}
        )

    def _absorb(self, entry: Entry) -> None:
        tensors = entry.tensors
        count = sum(key.endswith(".up") for key in tensors)
        direction = [(tensors[f"direction.{p}.up"], tensors[f"direction.{p}.down"]) for p in range(count)]
        self.bank.restore(direction, tensors["magnitudes"])
        self.head.set(tensors["head.weight"], tensors["head.bias"])
        self.classes = list(entry.facts["classes"])
