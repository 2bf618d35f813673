"""Base class of class-incremental classifiers: features, a head on class statistics, predictions."""

from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, ClassVar, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.reloading import reload_backbone
from newcomer.classes.class_memory import ClassMemory, make_head
from newcomer.classes.configuration import Classifier
from newcomer.classes.cost import flops, numbers
from newcomer.classes.loader import Loader
from newcomer.classes.predictions import Prediction, choices, ranked
from newcomer.data.class_names import class_name, known_names
from newcomer.data.examples import Examples, Input, Subset, require_examples
from newcomer.data.inputs import LoadedInputs, as_inputs, is_single
from newcomer.errors import LearnerError, NewcomerError, nearest
from newcomer.nn.features.novelty import Novelty
from newcomer.nn.heads.head import Linear, WeightBias
from newcomer.printable import counted, listed, stage_title
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.streams.stage import Stage
from newcomer.training.fit import chunks, evaluating
from newcomer.training.forks import require_own_process
from newcomer.training.learner import Learner, Progress, Step
from newcomer.training.processes import Processes

EVAL_BATCH = 64
"""Examples in a forward pass without gradients."""
TERMS_BATCH = 1024
"""Features whose kernel terms are held at once."""
PREDICT_BATCH = 1024
"""Texts predicted at once, those of similar length together."""
GIB = 2**30

One = Input | bytes | IO[bytes] | NDArray[Any]
Many = Sequence[Any] | Iterable[Any]
Given = One | Many
"""Inputs of a prediction: see `Examples`."""


class ClassLearner(Learner[Examples, Examples]):
    """A classifier on a pre-trained backbone that learns new classes task by task.

    A subclass adapts to a task in `_train`; then the features of its examples update the class memory, from which the head computes
    a classifier. No example is stored.
    """

    adapts_backbone: ClassVar[bool]
    """Whether tasks change the features, so that the statistics of old classes must be mapped along."""

    passes: ClassVar[int] = 1
    """Forward passes of the backbone a prediction."""

    classes: list[str]
    """Names of all known classes, in the order of the logits."""
    memory: ClassMemory
    """Class statistics, kept in place of examples."""
    cache_gib: float = 0.0
    """Memory for decoded images of the current task."""

    def __init__(self, backbone: Backbone | str, *, classifier: Classifier, device: str | None) -> None:
        super().__init__()
        self.backbone = Backbone(backbone) if isinstance(backbone, (str, Path)) else backbone
        self.processes = Processes(device)
        self.device = self.processes.device
        self.backbone.to(self.device)
        self._encoder: nn.Module = self.backbone.model
        """The model of a forward pass. Other threads may use it at the same time, so a pass stores nothing in it."""
        self.head_name, self.shrinkage, self.drift_map = classifier.head, classifier.shrinkage, classifier.drift_map
        self.head = make_head(classifier.head, classifier.shrinkage)
        # caches with the memory that they were computed from: a memory is immutable and gets replaced
        self._classifier: tuple[ClassMemory, WeightBias] | None = None
        self._novelty: tuple[ClassMemory, Novelty] | None = None

    def __repr__(self) -> str:
        backbone = Path(self.backbone.name).name if self.backbone.folder else self.backbone.name
        if not self.classes:
            return f"{type(self).__name__}({backbone!r}, no classes)"
        tasks = sum(entry.info["what"] == "learn" for entry in self.entries)
        learned = f"{counted(len(self.classes), 'class', 'classes')} after {counted(tasks, 'task')}"
        return f"{type(self).__name__}({backbone!r}, {learned}: {listed(self.classes)})"

    def learn(self, examples: Examples, *, progress: Progress | None = None) -> Self:
        """Learn one task from these examples. Returns the learner.

        New classes are added. Examples of known classes update the statistics of their class. A task without new classes, or of a
        single class, does not adapt the backbone.
        `progress` is called with every `Step`: the part of training, the step, the number of steps, and the loss.

        >>> from newcomer import FrozenBackbone
        >>> parts = []
        >>> digits = Examples(np.zeros((2, 8, 8, 3), np.uint8), ["dark", "dark"])
        >>> FrozenBackbone("micro-vit").learn(digits, progress=lambda step: parts.append((step.part, step.step, step.steps)))
        FrozenBackbone('micro-vit', 1 class after 1 task: 'dark')
        >>> parts
        [('task 0, after', 1, 1)]

        Raises LearnerError when there are no examples, DataError for anything but `Examples`.
        """
        for step in self.fit_stage(Stage(self.next_stage, examples, {})):
            if progress is not None:
                progress(step)
        return self

    def save(self, folder: str | Path) -> None:
        """Write the learner as a store; of several processes the first writes, and the others wait.

        Raises StoreError: see `Store.write`.
        """
        super().save(folder)
        self.processes.wait()

    @property
    def next_stage(self) -> str:
        """Name of the stage that `learn` would add now."""
        return f"task {sum(entry.info['what'] == 'learn' for entry in self.entries)}"

    def forget(self, name: str) -> Self:
        """Remove a class. Returns the learner.

        Its row of the head, its mean and its count are deleted. The effect of its examples on the adapted weights and on the shared
        covariance remains, and so does every earlier stage in a store.
        Raises LearnerError for an unknown class.
        """
        if name not in self.classes:
            name = class_name(name)
        if name not in self.classes:
            raise LearnerError(f"class '{name}' is not known; {nearest(name, self.classes)}")
        kept = [k for k, known in enumerate(self.classes) if known != name]
        self._keep_classes(kept)
        self.entries.append(self._record_entry(f"forget {name}", {"what": "forget", "class": name}))
        return self

    def features(self, inputs: Given) -> Float[Tensor, "batch width"]:
        """Features of the adapted backbone, on the CPU. Thread-safe.

        Raises DataError for an input that cannot be read; LearnerError for texts given to an image model or the other way round,
        and while another thread trains this learner.
        """
        return self._features(Loader(self.backbone, self._loaded(inputs), 0))

    def logits(self, inputs: Given) -> Float[Tensor, "batch class"]:
        """Logits of all classes, on the CPU, one row an input.

        Raises LearnerError before anything was learned, and as `features` does.
        """
        return self._logits(self.features(inputs))

    def linear_classifier(self) -> WeightBias:
        """Weight and bias of the classifier, one row per class, on the CPU, divided by the temperature: its softmax is calibrated.

        With `support_points` its input are the features' kernels with these points (`nn.heads.kernel`), else the features.
        Raises LearnerError before anything was learned.
        """
        self._require_classes()
        cached = self._classifier
        if cached is None or cached[0] is not self.memory:
            temperature = self.memory.temperature(self.head_name)
            weight, bias = self.memory.fold(self.head, self._trained_head())
            cached = self.memory, (weight / temperature, bias / temperature)
            # a trained head changes without notice, and costs nothing to compute
            self._classifier = None if self.head_name == "linear" else cached
        return cached[1]

    @property
    def support_points(self) -> Float[Tensor, "point width"] | None:
        """Support points of a kernel head; None for a head that is linear in the features."""
        return self.head.support_points(self.memory.statistics)

    def novelty(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Novelty scores: distance to the nearest known class, see `nn.features.novelty`."""
        cached = self._novelty
        if cached is None or cached[0] is not self.memory:
            cached = self._novelty = self.memory, Novelty.of(self.memory.statistics.double(), self.shrinkage)
        return cached[1](features.double())

    @overload
    def predict(self, inputs: One) -> str: ...  # type: ignore[overload-overlap]  # a text is a sequence, too
    @overload
    def predict(self, inputs: Many) -> list[str]: ...
    def predict(self, inputs: Given) -> str | list[str]:
        """The most probable class of an input, or a list of classes for many inputs.

        An input is a text, or an image: a PIL image, a path, an open file, the bytes of a file, or an array of uint8. Many inputs
        are a list, a column of pandas, polars or numpy, or a generator: see `Examples`.
        Raises DataError for an input that is missing, empty or cannot be read.
        """
        found = [self.classes[i] for i in self.logits(inputs).argmax(1).tolist()]
        return found[0] if is_single(inputs) else found

    def predict_proba(self, inputs: Given) -> NDArray[np.float32]:
        """Calibrated probabilities in the order of `classes`: array [input, class]; for a single input, array [class]."""
        found: NDArray[np.float32] = self.logits(inputs).softmax(1).numpy()
        return found[0] if is_single(inputs) else found

    @overload
    def predict_topk(self, inputs: One, *, top: int = 5, reject: float | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict_topk(self, inputs: Many, *, top: int = 5, reject: float | None = None) -> list[Prediction]: ...
    def predict_topk(
        self, inputs: Given, *, top: int = 5, reject: float | None = None
    ) -> Prediction | list[Prediction]:
        """The `top` most probable classes of each input with calibrated probabilities; a single Prediction for a single input.

        Probabilities are calibrated by temperature scaling on held-out examples of each task. With `reject`, an input is not
        `known` if its novelty score exceeds the (1 − `reject`) quantile of the known classes' held-out examples: `reject` is the
        false-rejection rate. Without it every input counts as known.
        Raises SettingError for a `top` below 1 and a `reject` outside [0, 1], DataError as `predict` does.
        """
        top, reject = choices(top, reject)
        limit = self._novelty_threshold(reject)
        found = self._predictions(self.features(inputs), top, limit)
        return found[0] if is_single(inputs) else found

    def iter_predictions(
        self, inputs: Sequence[Any], *, top: int = 5, reject: float | None = None
    ) -> Iterator[Prediction | NewcomerError]:
        """`predict_topk` of one input after the other, as they are read; the error for an input that cannot be read."""
        top, reject = choices(top, reject)
        limit = self._novelty_threshold(reject)
        opened = LoadedInputs(inputs, self.backbone.reads_images)
        for part in chunks(len(opened), EVAL_BATCH if self.backbone.reads_images else PREDICT_BATCH):
            rows = range(part.start, part.stop)
            loader = Loader(self.backbone, Subset(opened, rows), float("inf"))
            wrong = loader.unreadable()
            right = [row for row in range(len(rows)) if row not in wrong]
            found = dict(zip(right, self._predictions(self._features(loader, right), top, limit), strict=True))
            yield from (wrong[row] if row in wrong else found[row] for row in range(len(rows)))

    def evaluate(self, eval_set: Examples) -> dict[str, float]:
        """`accuracy` in [0, 1] among all classes, and the number of `examples`.

        Raises LearnerError for an unknown class and for an empty evaluation set.
        """
        require_examples(eval_set, f"{type(self).__name__}.evaluate")
        if not len(eval_set):
            raise LearnerError("the evaluation set has no examples")
        known = {name: i for i, name in enumerate(self.classes)}
        for label in eval_set.labels:
            if label not in known:
                raise LearnerError(f"the evaluation set has class '{label}', which was never learned")
        right = self.logits(eval_set.inputs).argmax(1) == torch.tensor([known[label] for label in eval_set.labels])
        return {"accuracy": right.double().mean().item(), "examples": float(len(eval_set))}

    def info(self) -> dict[str, Json]:
        """`cost` after the last task; absent before the first.

        `passes` of the backbone and `gflops` to predict one input, head included (for texts: one as long as the task's first);
        trained `parameters` of the task, without old head rows outside its loss; numbers `stored` besides the backbone to predict
        and to learn further tasks. The paper's cost table counts the same, without head and statistics.
        """
        costs = [entry.info["cost"] for entry in self.entries if "cost" in entry.info]
        return {"cost": costs[-1]} if costs else {}

    def encoder_weights(self) -> dict[str, Tensor]:
        """Adapted weights by their names in `backbone.model`.

        Raises LearnerError for a model that is not the backbone with other weights and a head.
        """
        return {}

    def _fit_stage(self, stage: Stage[Examples, Examples]) -> Iterator[Step]:
        _require_threads()
        require_examples(stage.train, f"stage '{stage_title(stage.name)}'")
        if not len(stage.train):
            raise LearnerError(f"stage '{stage_title(stage.name)}' has no examples to learn from")
        labels, inputs = stage.train.labels, self._loaded(stage.train.inputs)
        class_index = {name: i for i, name in enumerate(dict.fromkeys([*self.classes, *labels]))}
        target, new = torch.tensor([class_index[label] for label in labels]), len(class_index) - len(self.classes)
        several = len(torch.unique(target)) > 1
        if self.head_name == "linear" and new and not several:
            raise LearnerError(
                "the linear head learns nothing from a single class; give two or more, or --set head=lda"
            )
        adapts = self._adapts_now()
        trains = (adapts or self.head_name == "linear") and new > 0 and several
        maps_drift = trains and adapts and self.drift_map and bool(self.classes)
        self.stage_info: dict[str, Json] = {}
        self.trainable_parameters = 0
        loader = Loader(self.backbone, inputs, self.cache_gib * GIB)
        loader.read([0])  # inputs of the wrong kind are refused at once
        needs_old = maps_drift or (trains and self._needs_initial_features())
        old = (yield from self._extract_features(f"{stage.name}, before", loader)) if needs_old else None
        self._add_classes(new)
        if old is not None:
            self._init_head(old, target)
        if trains:
            yield from self._train(stage.name, loader, target)
        new_features = yield from self._extract_features(f"{stage.name}, after", loader)
        if not new_features.isfinite().all():
            raise LearnerError("the features are not finite; lower the learning rate")
        if old is not None and maps_drift:
            self.memory, self.stage_info["drift explained"] = self.memory.after_drift(old, new_features, target)
        self.classes = list(class_index)
        self._update_memory(new_features, target)
        self.stage_info["cost"] = self._cost(loader)

    def _loaded(self, inputs: Given) -> Sequence[Any]:
        """Inputs, opened on access; a single input as a sequence of one."""
        many = [inputs] if is_single(inputs) else inputs
        return LoadedInputs(as_inputs(many), self.backbone.reads_images)

    def _features(self, loader: Loader, rows: Sequence[int] | None = None) -> Float[Tensor, "batch width"]:
        """Features of these rows (all by default), decoded batch by batch."""
        _require_threads()
        self._require_not_training()
        stages = len(self.entries)
        rows = range(len(loader.inputs)) if rows is None else rows
        position = {row: i for i, row in enumerate(rows)}
        order = self.backbone.sort_by_length(loader.inputs, rows)
        features = torch.empty(len(rows), self.backbone.width)
        with evaluating(self.backbone):
            for part in chunks(len(order), EVAL_BATCH):
                batch = order[part.start : part.stop]
                encoded = self.backbone.to_device(loader.read(batch))
                features[[position[row] for row in batch]] = self._encode(encoded).float().cpu()
        self._require_not_training()
        if len(self.entries) != stages:
            raise LearnerError(f"this {type(self).__name__} was trained by another thread meanwhile; predict again")
        return features

    def _novelty_threshold(self, reject: float | None) -> float | None:
        """Novelty score above which an input is rejected; None: none is."""
        if reject is None:
            return None
        self._require_classes()
        limit = self.memory.threshold(reject)
        if limit == float("inf"):
            raise LearnerError("too few examples for a rejection threshold; learn at least two of a class")
        return limit

    def _predictions(self, features: Float[Tensor, "batch width"], top: int, limit: float | None) -> list[Prediction]:
        known = [True] * len(features) if limit is None else (self.novelty(features) <= limit).tolist()
        return ranked(self._logits(features).softmax(1), self.classes, top, known)

    def _extract_features(self, part: str, loader: Loader) -> Generator[Step, None, Float[Tensor, "batch width"]]:
        """Features of a task's examples, summed over processes."""
        features = torch.zeros(len(loader.inputs), self.backbone.width, device=self.device)
        order = self.backbone.sort_by_length(loader.inputs, range(len(loader.inputs)))
        size = EVAL_BATCH * self.processes.count
        plan = [self.processes.share(order[part.start : part.stop]) for part in chunks(len(order), size)]
        with closing(loader.batches([rows for rows in plan if rows])) as tensors:
            for step, rows in enumerate(plan, 1):
                with evaluating(self.backbone):
                    if rows:
                        features[rows] = self._encode(self.backbone.to_device(next(tensors))).float()
                yield Step(part, step, len(plan))
        self.processes.add_up([features])
        return features.cpu()

    def _reset(self) -> None:
        self.classes, self.memory = [], ClassMemory.empty(self.backbone.width)

    def _keep_classes(self, classes: list[int]) -> None:
        """Remove all other classes."""
        self.classes = [self.classes[k] for k in classes]
        self.memory = self.memory.at(classes)

    def _encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        features: Tensor = self.backbone(encoded, self._encoder)
        return features

    def _require_classes(self) -> None:
        if not self.classes:
            raise LearnerError(f"{type(self).__name__} has learned no class; call learn first")

    def _logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        """The head's logits of these features."""
        weight, bias = self.linear_classifier()
        found = []
        for part in torch.split(features, TERMS_BATCH):
            terms = self.head.terms(self.memory.statistics, part)
            found.append(F.linear(terms, weight.to(terms), bias.to(terms)).float())
        return torch.cat(found)

    def _update_memory(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> None:
        """Add the statistics of a task's examples."""
        self.memory, held_out = self.memory.with_task(
            features, target, self.head_name, self.shrinkage, self._trained_head()
        )
        if held_out is not None:
            self.stage_info["held-out accuracy"] = held_out

    def _cost(self, loader: Loader) -> dict[str, Json]:
        """See `info`."""
        with evaluating(self.backbone):
            encoded = self.backbone.to_device(loader.read([0]))
            operations = flops(lambda: self._encode(encoded)) + self._head_flops()
        stored = numbers(self._stored_tensors())
        return {
            "passes": self.passes,
            "gflops": operations / 1e9,
            "parameters": self.trainable_parameters,
            "stored": stored,
        }

    def _head_flops(self) -> int:
        width, points = self.backbone.width, self.support_points
        return 2 * (len(self.classes) * width if points is None else len(points) * (width + len(self.classes)))

    def _stored_tensors(self) -> Iterable[Tensor]:
        """All tensors needed to predict and to learn further tasks, besides the backbone."""
        return self._tensors().values()

    def _adapts_now(self) -> bool:
        """Whether the current task trains the adapter."""
        return self.adapts_backbone

    def _add_classes(self, classes: int) -> None:
        """Add rows for new classes."""

    def _needs_initial_features(self) -> bool:
        """Whether `_init_head` needs features of the task before training."""
        return False

    def _init_head(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> None:
        """Initialize the head from the features before training."""

    def _train(self, stage: str, loader: Loader, target: Int[Tensor, " example"]) -> Iterator[Step]:
        """Train on a task; `target` are indices into all classes, new ones last."""
        return iter(())

    @abstractmethod
    def _trained_head(self) -> Linear:
        """Weight and bias of the trained linear head."""

    def _tensors(self) -> dict[str, Tensor]:
        """Current tensors that earlier entries do not hold."""
        return self.memory.tensors()

    def _make_entry(self, stage: Stage[Examples, Examples]) -> Entry:
        info = {"what": "learn", "examples": len(stage.train), "settings": dict(self.settings), **self.stage_info}
        return self._record_entry(stage.name, info)

    def _record_entry(self, name: str, info: dict[str, Json]) -> Entry:
        kept = {**self._tensors(), **self._cached_head()}
        tensors = {key: t.detach().to("cpu", copy=True) for key, t in kept.items()}
        return Entry(name, tensors, {"classes": list(self.classes), **info})

    def _cached_head(self) -> dict[str, Tensor]:
        """The classifier of a slow head, so that an opened store predicts at once."""
        if not (self.classes and self.head.slow):
            return {}
        weight, bias = self.linear_classifier()
        return {f"{self._cached_head_name}.weight": weight, f"{self._cached_head_name}.bias": bias}

    @property
    def _cached_head_name(self) -> str:
        """Tensor name of the cached classifier; it depends on head and shrinkage."""
        return f"fitted.{self.head_name}.{self.shrinkage!r}"

    def _apply_entry(self, entry: Entry) -> None:
        self.memory = ClassMemory.from_tensors(entry.tensors)
        self.classes = known_names(entry.info["classes"])
        if len(self.classes) != len(self.memory.statistics.mean):
            raise ValueError("class names and class statistics differ in number")
        if f"{self._cached_head_name}.weight" in entry.tensors:
            self._classifier = (
                self.memory,
                (entry.tensors[f"{self._cached_head_name}.weight"], entry.tensors[f"{self._cached_head_name}.bias"]),
            )

    def _depends_on(self) -> dict[str, Json]:
        return {"backbone": self.backbone.identity()}

    @classmethod
    def _from_manifest(
        cls, depends_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]
    ) -> Self:
        backbone = given.get("backbone")
        if not isinstance(backbone, Backbone):
            backbone = reload_backbone(depends_on["backbone"], backbone, given["store"])
        return cls(backbone, **settings)


def _require_threads() -> None:
    """Raises StoreError in a process forked after torch had started threads, where it would deadlock."""
    if torch.get_num_threads() > 1:
        require_own_process()
