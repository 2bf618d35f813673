"""Part of a learner: the classes' Gaussians, on whose draws the linear head is aligned after a task."""

from collections.abc import Mapping
from typing import ClassVar, final

from newcomer.classes.configuration import Alignment, Classifier
from newcomer.classes.parts import Part, Task
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import LearnerError, SettingError
from newcomer.nn.features.class_gaussians import ClassGaussians
from newcomer.nn.heads.alignment import align
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.fit import finite

PREFIX = "gaussians."


@final
class HeadAlignment(Part):
    """A Gaussian of each class's features under the weights of its own task, and the alignment (`nn.heads.alignment`).

    Later weights give old classes other features; as in SLCA, their Gaussians stay as they were.
    """

    replaces_state: ClassVar[bool] = True
    gaussians: ClassGaussians

    def __init__(self, width: int, settings: Alignment, classifier: Classifier, learner: str) -> None:
        """Raises SettingError, in the learner's name, for a prior that the aligned head cannot have."""
        if classifier.head == "linear" and classifier.prior == "empirical":
            raise SettingError(
                f"{learner}: prior = 'empirical', but the alignment draws as many features of every class; leave prior out, or "
                "give another head than 'linear'"
            )
        self.width, self.settings = width, settings

    def update(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        task: Task | None,
        loop: TrainingLoop,
    ) -> None:
        """Add a task's examples; if it was trained and is not the first, align the linear head.

        Raises LearnerError if that does not converge.
        """
        self.gaussians = self.gaussians.with_examples(features, target)
        if task is not None and not task.is_first:
            how = self.settings
            rows, loss = align(
                loop.linear_head.rows(),
                self.gaussians,
                epochs=how.alignment_epochs,
                draws=how.alignment_draws,
                learning_rate=how.alignment_learning_rate,
                logit_norm=how.logit_norm,
                generator=task.spawn("alignment"),
            )
            finite(loss)
            loop.linear_head.set(*rows)

    def reset(self) -> None:
        self.gaussians = ClassGaussians.empty(self.width)

    def state(self) -> dict[str, Tensor]:
        return {PREFIX + name: tensor for name, tensor in vars(self.gaussians).items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.gaussians = ClassGaussians(**{name: state[PREFIX + name] for name in vars(self.gaussians)})

    def require_names(self) -> None:
        raise LearnerError(
            "this method aligns its head on the covariance of each class, which a name does not tell; give examples of the "
            "class, or take another method, such as 'sd-lora' or 'frozen'"
        )

    def keep(self, classes: list[int]) -> None:
        self.gaussians = self.gaussians.at(classes)
