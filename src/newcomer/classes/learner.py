"""What learners for new classes share: classes by name, batches of pictures or texts, predictions."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast, overload

import torch
from PIL.Image import Image

from newcomer.classes.backbone import Backbone
from newcomer.data.examples import Examples, Input
from newcomer.data.pictures import read_picture
from newcomer.errors import LearnerError
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.streams.stage import Stage
from newcomer.training.fit import chunks, evaluating, pick_device
from newcomer.training.learner import Learner, Step

EXAM_BATCH = 64
"""Examples a forward pass without gradients."""


class ClassLearner(Learner[Examples, Examples]):
    """A classifier on a frozen backbone that is taught new classes stage by stage.

    A subclass learns in `_teach` and answers in `_logits`.
    """

    def __init__(self, backbone: Backbone | str, device: str | None) -> None:
        super().__init__()
        self.backbone = Backbone(backbone) if isinstance(backbone, str) else backbone
        self.device = pick_device(device)
        self.backbone.to(self.device)
        self.classes: list[str] = []
        """Names of all classes learned, in the order of the logits."""

    def learn(self, examples: Examples) -> Self:
        """Learn the classes of these examples: one stage. Returns the learner.

        Raises LearnerError when there are no examples, or one is of a class that was learned before.
        """
        for _ in self.study(Stage(f"task {len(self.entries)}", examples, {})):
            pass
        return self

    def logits(self, inputs: Sequence[Input]) -> Float[Tensor, "batch klass"]:
        """Logits of all classes learned, on the CPU, one row an input. Changes nothing.

        Raises LearnerError before anything was learned.
        """
        if not self.classes:
            raise LearnerError(f"{type(self).__name__} has learned no class yet; call learn first")
        # Texts of like length share a batch, so that little of it is padding.
        order = list(range(len(inputs)))
        if not self.backbone.pictures:
            order.sort(key=lambda i: len(cast(str, inputs[i])))
        logits = torch.empty(len(inputs), len(self.classes))
        with evaluating(self.backbone):
            for part in chunks(len(order), EXAM_BATCH):
                chosen = order[part.start : part.stop]
                logits[chosen] = self._logits([inputs[i] for i in chosen]).cpu()
        return logits

    @overload
    def predict(self, inputs: Input | Path) -> str: ...  # type: ignore[overload-overlap]  # a text is a sequence, too
    @overload
    def predict(self, inputs: Sequence[Input | Path]) -> list[str]: ...
    def predict(self, inputs: Input | Path | Sequence[Input | Path]) -> str | list[str]:
        """The class of a picture, a picture's path or a text; of a sequence of them, a list."""
        if isinstance(inputs, (str, Path, Image)):
            return self.predict([inputs])[0]
        read = [read_picture(x) if isinstance(x, Path) else x for x in inputs]
        return [self.classes[i] for i in self.logits(read).argmax(1).tolist()]

    def sit(self, exam: Examples) -> dict[str, float]:
        """`accuracy` in [0, 1] among all classes learned, and the number of `examples`."""
        known = {name: i for i, name in enumerate(self.classes)}
        for label in exam.labels:
            if label not in known:
                raise LearnerError(f"the exam asks for class '{label}', which was never learned")
        right = self.logits(exam.inputs).argmax(1) == torch.tensor([known[label] for label in exam.labels])
        return {"accuracy": right.double().mean().item(), "examples": float(len(exam))}

    def _study(self, stage: Stage[Examples, Examples]) -> Iterator[Step]:
        if not len(stage.lesson):
            raise LearnerError(f"stage '{stage.name}' has no examples to learn from")
        new = list(dict.fromkeys(stage.lesson.labels))
        for name in new:
            if name in self.classes:
                raise LearnerError(f"class '{name}' was learned before; a stage teaches new classes only")
        before = len(self.classes)
        self.classes += new
        number = {name: before + i for i, name in enumerate(new)}
        klass = torch.tensor([number[label] for label in stage.lesson.labels], device=self.device)
        yield from self._teach(stage.name, stage.lesson.inputs, klass, len(new))

    def _clear(self) -> None:
        self.classes = []

    def _features(self, inputs: Sequence[Input]) -> Float[Tensor, "batch width"]:
        features: Tensor = self.backbone(self.backbone.encode(inputs))
        return features

    @abstractmethod
    def _teach(self, stage: str, inputs: Sequence[Input], klass: Int[Tensor, " example"], new: int) -> Iterator[Step]:
        """Learn `new` classes, numbered from those known on; `klass` holds their numbers."""

    @abstractmethod
    def _logits(self, inputs: Sequence[Input]) -> Float[Tensor, "batch klass"]: ...

    def _stands_on(self) -> dict[str, Json]:
        backbone = {"name": self.backbone.name, **self.backbone.settings, "fingerprint": self.backbone.fingerprint}
        return {"backbone": backbone}

    @classmethod
    def _rebuild(cls, stands_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]) -> Self:
        saved = {key: value for key, value in stands_on["backbone"].items() if key != "fingerprint"}
        backbone = given.get("backbone", saved.pop("name"))
        if isinstance(backbone, str):
            backbone = Backbone(backbone, **saved)
        return cls(backbone, **settings)
