"""What learners for new classes share: classes by name, features, the head that reads them, and answers."""

from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.reopening import reopened
from newcomer.classes.class_memory import HeadName, Memory, make_head
from newcomer.classes.cost import flops, numbers
from newcomer.classes.loader import Feed
from newcomer.classes.predictions import Answer, choices, ranked
from newcomer.data.class_names import class_name, known_names
from newcomer.data.examples import Chosen, Examples, Input, require_examples
from newcomer.data.inputs import Opened, as_inputs, is_single
from newcomer.errors import LearnerError, NewcomerError, nearest
from newcomer.nn.features.novelty import Novelty
from newcomer.nn.heads.head import Found, Linear
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.streams.stage import Stage
from newcomer.training.fit import chunks, evaluating
from newcomer.training.forks import require_own_process
from newcomer.training.learner import Learner, Step
from newcomer.training.processes import Processes

EXAM_BATCH = 64
"""Examples a forward pass without gradients."""
TERMS_BATCH = 1024
"""Features whose terms are held at once: a head may make more numbers of them than they are."""
READ_BATCH = 1024
"""Texts that are answered at once, those of like length together."""
GIB = 2**30

One = Input | bytes | NDArray[Any]
Many = Sequence[Any] | Iterable[Any]
Given = One | Many
"""What may be asked about: see `Examples`."""


class ClassLearner(Learner[Examples, Examples]):
    """A classifier on a frozen backbone that is taught new classes stage by stage.

    A subclass adapts to new classes in `_teach`; then the features of their examples go into the memory of classes, from which
    the head finds a classifier. No example is kept.
    """

    adapts: ClassVar[bool]
    """Whether a stage moves the weights, so that what is remembered of old classes has to move along."""

    passes: ClassVar[int] = 1
    """Forward passes of the backbone that a prediction takes."""

    classes: list[str]
    """Names of all classes known, in the order of the logits."""
    memory: Memory
    """What is kept of them in place of their examples."""
    cache_gib: float = 0.0
    """Memory for decoded pictures of the lesson under way."""

    def __init__(
        self, backbone: Backbone | str, *, head: HeadName, shrinkage: float, drift_map: bool, device: str | None
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone) if isinstance(backbone, (str, Path)) else backbone
        self.processes = Processes(device)
        self.device = self.processes.device
        self.backbone.to(self.device)
        self._encoder: nn.Module = self.backbone.model
        """What a pass runs through. Others may run through it at the same time, so nothing of a pass is kept in it."""
        self.head_name, self.shrinkage, self.drift_map = head, shrinkage, drift_map
        self.head = make_head(head, shrinkage)
        # what was made of a memory, beside it: a memory never changes, another one takes its place
        self._folded: tuple[Memory, Found] | None = None
        self._novelty: tuple[Memory, Novelty] | None = None

    def learn(self, examples: Examples) -> Self:
        """Learn from these examples: one stage. Returns the learner.

        Classes never seen before are added. A lesson may also hold more examples of known classes: they count towards what is
        remembered of their class. A lesson of known classes only, or of a single class, adapts nothing.
        Raises LearnerError when there are no examples, DataError for anything but `Examples`.
        """
        for _ in self.study(Stage(self.next_stage, examples, {})):
            pass
        return self

    def save(self, folder: str | Path) -> None:
        """Write the learner as a store; of several processes one writes, and all go on when it has.

        Raises StoreError: see `Store.write`.
        """
        super().save(folder)
        self.processes.wait()

    @property
    def next_stage(self) -> str:
        """The name of the stage that `learn` would study now."""
        return f"task {sum(entry.facts['what'] == 'learn' for entry in self.entries)}"

    def forget(self, name: str) -> Self:
        """Offer this class no more. Returns the learner.

        Its row of the head, its mean and its count are gone. What its examples did to the adapted weights, and to the covariance
        that all classes share, remains; so does every earlier state in a store.
        Raises LearnerError for a class that is not known.
        """
        if name not in self.classes:
            name = class_name(name)
        if name not in self.classes:
            raise LearnerError(f"class '{name}' is not known; {nearest(name, self.classes)}")
        kept = [k for k, known in enumerate(self.classes) if known != name]
        self._keep(kept)
        self.entries.append(self._write_down(f"forget {name}", {"what": "forget", "class": name}))
        return self

    def features(self, inputs: Given) -> Float[Tensor, "batch width"]:
        """What the adapted backbone makes of these inputs, on the CPU. Changes nothing; several threads may ask at once.


        Raises DataError for what cannot be read; LearnerError for texts where pictures are wanted or the other way round, and
        while, or where meanwhile, another thread teaches this learner.
        """
        return self._features(Feed(self.backbone, self._opened(inputs), 0))

    def logits(self, inputs: Given) -> Float[Tensor, "batch klass"]:
        """Logits of all classes learned, on the CPU, one row an input. Changes nothing.

        Raises LearnerError before anything was learned, and as `features` does.
        """
        return self._logits(self.features(inputs))

    def folded_head(self) -> Found:
        """Weight and bias of the linear layer that reads the features, one row a class, on the CPU.

        Where the head has `points`, the layer reads the features' kernels with them (`nn.heads.kernel`).
        The temperature is folded in: softmax of these logits is calibrated probability.
        Raises LearnerError before anything was learned.
        """
        self._require_classes()
        folded = self._folded
        if folded is None or folded[0] is not self.memory:
            hot = self.memory.temperature(self.head_name)
            weight, bias = self.memory.fold(self.head, self._trained())
            folded = self.memory, (weight / hot, bias / hot)
            # of trained rows nothing tells when they change, and to fold them costs nothing
            self._folded = None if self.head_name == "linear" else folded
        return folded[1]

    @property
    def points(self) -> Float[Tensor, "point width"] | None:
        """What the head compares features with; None where it is linear in them."""
        return self.head.points(self.memory.statistics)

    def novelty(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """How far these features lie from every known class: see `nn.features.novelty`."""
        found = self._novelty
        if found is None or found[0] is not self.memory:
            found = self._novelty = self.memory, Novelty.of(self.memory.statistics.double(), self.shrinkage)
        return found[1](features.double())

    @overload
    def predict(self, inputs: One) -> str: ...  # type: ignore[overload-overlap]  # a text is a sequence, too
    @overload
    def predict(self, inputs: Many) -> list[str]: ...
    def predict(self, inputs: Given) -> str | list[str]:
        """The class of a text, or of a picture: one of PIL, its path, the bytes of its file, or an array of uint8; of many, a list.

        Many are a list, a column of pandas, polars or numpy, a generator: see `Examples`.
        Raises DataError for an input that is missing, empty or cannot be read.
        """
        found = [self.classes[i] for i in self.logits(inputs).argmax(1).tolist()]
        return found[0] if is_single(inputs) else found

    def predict_proba(self, inputs: Given) -> NDArray[np.float32]:
        """Calibrated probabilities in the order of `classes`: array [input, class]; of a single input, array [class]."""
        found: NDArray[np.float32] = self.logits(inputs).softmax(1).numpy()
        return found[0] if is_single(inputs) else found

    @overload
    def answer(self, inputs: One, *, top: int = 5, reject: float | None = None) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def answer(self, inputs: Many, *, top: int = 5, reject: float | None = None) -> list[Answer]: ...
    def answer(self, inputs: Given, *, top: int = 5, reject: float | None = None) -> Answer | list[Answer]:
        """The `top` classes of each input with their probabilities, and whether it belongs to any known class; of one, one answer.

        Probabilities are calibrated by a temperature, found on examples held out of each lesson from the head. With `reject`, an
        input is not `known` where its novelty (`nn.features.novelty`) is above what this share of the known classes' own held-out examples
        has; without, every input is taken to be of a known class.
        Raises SettingError for a `top` below 1 and a `reject` outside [0, 1], DataError as `predict` does.
        """
        top, reject = choices(top, reject)
        limit = self._limit(reject)
        found = self._answers(self.features(inputs), top, limit)
        return found[0] if is_single(inputs) else found

    def answers(
        self, inputs: Sequence[Any], *, top: int = 5, reject: float | None = None
    ) -> Iterator[Answer | NewcomerError]:
        """What `answer` says of one input after the other, as they are read; of one that cannot be read, what is wrong with it."""
        top, reject = choices(top, reject)
        limit = self._limit(reject)
        opened = Opened(inputs, self.backbone.pictures)
        for part in chunks(len(opened), EXAM_BATCH if self.backbone.pictures else READ_BATCH):
            rows = range(part.start, part.stop)
            feed = Feed(self.backbone, Chosen(opened, rows), float("inf"))
            wrong = feed.unreadable()
            right = [row for row in range(len(rows)) if row not in wrong]
            found = dict(zip(right, self._answers(self._features(feed, right), top, limit), strict=True))
            yield from (wrong[row] if row in wrong else found[row] for row in range(len(rows)))

    def sit(self, exam: Examples) -> dict[str, float]:
        """`accuracy` in [0, 1] among all classes learned, and the number of `examples`.

        Raises LearnerError for a class that was never learned and for an exam without examples.
        """
        require_examples(exam, f"{type(self).__name__}.sit")
        if not len(exam):
            raise LearnerError("the exam has no examples")
        known = {name: i for i, name in enumerate(self.classes)}
        for label in exam.labels:
            if label not in known:
                raise LearnerError(f"the exam asks for class '{label}', which was never learned")
        right = self.logits(exam.inputs).argmax(1) == torch.tensor([known[label] for label in exam.labels])
        return {"accuracy": right.double().mean().item(), "examples": float(len(exam))}

    def facts(self) -> dict[str, Json]:
        """`cost`, as the last lesson had it; absent before any.

        `passes` of the backbone and `gflops` to predict one input, its head included (of texts: one as long as the lesson's first);
        `parameters` that the lesson trained, old head rows not among them that its loss never asks for; numbers `stored` besides
        the backbone to answer and to learn on. The paper's cost table counts the same, but neither head nor statistics.
        """
        costs = [entry.facts["cost"] for entry in self.entries if "cost" in entry.facts]
        return {"cost": costs[-1]} if costs else {}

    def encoder_weights(self) -> dict[str, Tensor]:
        """What stands in the place of the backbone's weights, by their names in `backbone.model`: only what is adapted.

        Raises LearnerError where weights do not say it all: it computes otherwise than the backbone with its head on top.
        """
        return {}

    def _study(self, stage: Stage[Examples, Examples]) -> Iterator[Step]:
        _require_threads()
        require_examples(stage.lesson, f"stage '{stage.name}'")
        if not len(stage.lesson):
            raise LearnerError(f"stage '{stage.name}' has no examples to learn from")
        labels, inputs = stage.lesson.labels, self._opened(stage.lesson.inputs)
        number = {name: i for i, name in enumerate(dict.fromkeys([*self.classes, *labels]))}
        klass, new = torch.tensor([number[label] for label in labels]), len(number) - len(self.classes)
        several = len(torch.unique(klass)) > 1
        if self.head_name == "linear" and new and not several:
            raise LearnerError(
                "the linear head learns nothing from a single class; give two or more, or --set head=lda"
            )
        moves = self._moves()
        taught = (moves or self.head_name == "linear") and new > 0 and several
        carried = taught and moves and self.drift_map and bool(self.classes)
        self.learned: dict[str, Json] = {}
        self.trained_numbers = 0
        feed = Feed(self.backbone, inputs, self.cache_gib * GIB)
        feed.read([0])  # a lesson of the wrong kind is refused at once
        looked = carried or (taught and self._starts_from_features())
        old = (yield from self._look(f"{stage.name}, before", feed)) if looked else None
        self._grow(new)
        if old is not None:
            self._start(old, klass)
        if taught:
            yield from self._teach(stage.name, feed, klass)
        now = yield from self._look(f"{stage.name}, after", feed)
        if not now.isfinite().all():
            raise LearnerError("the features are no longer numbers; lower the learning rate")
        if old is not None and carried:
            self.memory, self.learned["drift explained"] = self.memory.drifted(old, now, klass)
        self.classes = list(number)
        self._remember(now, klass)
        self.learned["cost"] = self._cost(feed)

    def _opened(self, inputs: Given) -> Sequence[Any]:
        """Many inputs, opened when they are asked for; a single one is the only one of many."""
        many = [inputs] if is_single(inputs) else inputs
        return Opened(as_inputs(many), self.backbone.pictures)

    def _features(self, feed: Feed, rows: Sequence[int] | None = None) -> Float[Tensor, "batch width"]:
        """The features of these rows of a feed (all by default), of which no more than one is decoded at a time."""
        _require_threads()
        self._require_rest()
        stages = len(self.entries)
        rows = range(len(feed.inputs)) if rows is None else rows
        place = {row: i for i, row in enumerate(rows)}
        order = self.backbone.alike(feed.inputs, rows)
        features = torch.empty(len(rows), self.backbone.width)
        with evaluating(self.backbone):
            for part in chunks(len(order), EXAM_BATCH):
                chosen = order[part.start : part.stop]
                encoded = self.backbone.ready(feed.read(chosen))
                features[[place[row] for row in chosen]] = self._see(encoded).float().cpu()
        self._require_rest()
        if len(self.entries) != stages:
            raise LearnerError(f"this {type(self).__name__} was taught by another thread meanwhile; ask again")
        return features

    def _limit(self, reject: float | None) -> float | None:
        """The novelty above which an input belongs to no known class; None: none does."""
        if reject is None:
            return None
        self._require_classes()
        limit = self.memory.threshold(reject)
        if limit == float("inf"):
            raise LearnerError("too few examples were learned to tell what is unknown; two of a class are the least")
        return limit

    def _answers(self, features: Float[Tensor, "batch width"], top: int, limit: float | None) -> list[Answer]:
        known = [True] * len(features) if limit is None else (self.novelty(features) <= limit).tolist()
        return ranked(self._logits(features).softmax(1), self.classes, top, known)

    def _look(self, part: str, feed: Feed) -> Generator[Step, None, Float[Tensor, "batch width"]]:
        """The features of a lesson, each process seeing its share."""
        features = torch.zeros(len(feed.inputs), self.backbone.width, device=self.device)
        order = self.backbone.alike(feed.inputs, range(len(feed.inputs)))
        size = EXAM_BATCH * self.processes.count
        plan = [self.processes.share(order[part.start : part.stop]) for part in chunks(len(order), size)]
        with closing(feed.batches([rows for rows in plan if rows])) as tensors:
            for step, rows in enumerate(plan, 1):
                with evaluating(self.backbone):
                    if rows:
                        features[rows] = self._see(self.backbone.ready(next(tensors))).float()
                yield Step(part, step, len(plan))
        self.processes.add_up([features])
        return features.cpu()

    def _clear(self) -> None:
        self.classes, self.memory = [], Memory.empty(self.backbone.width)

    def _keep(self, classes: list[int]) -> None:
        """Only these classes go on being known."""
        self.classes = [self.classes[k] for k in classes]
        self.memory = self.memory.at(classes)

    def _see(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        features: Tensor = self.backbone(encoded, self._encoder)
        return features

    def _require_classes(self) -> None:
        if not self.classes:
            raise LearnerError(f"{type(self).__name__} knows no class; call learn first")

    def _logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch klass"]:
        """What the head says of these features."""
        weight, bias = self.folded_head()
        found = []
        for part in torch.split(features, TERMS_BATCH):
            terms = self.head.terms(self.memory.statistics, part)
            found.append(F.linear(terms, weight.to(terms), bias.to(terms)).float())
        return torch.cat(found)

    def _remember(self, features: Float[Tensor, "batch width"], klass: Int[Tensor, " batch"]) -> None:
        """Keep what the head needs of a lesson, in place of its examples."""
        self.memory, held_out = self.memory.with_lesson(
            features, klass, self.head_name, self.shrinkage, self._trained()
        )
        if held_out is not None:
            self.learned["held-out accuracy"] = held_out

    def _cost(self, feed: Feed) -> dict[str, Json]:
        """See `facts`."""
        with evaluating(self.backbone):
            encoded = self.backbone.ready(feed.read([0]))
            operations = flops(lambda: self._see(encoded)) + self._head_flops()
        stored = numbers(self._stored())
        return {
            "passes": self.passes,
            "gflops": operations / 1e9,
            "parameters": self.trained_numbers,
            "stored": stored,
        }

    def _head_flops(self) -> int:
        width, points = self.backbone.width, self.points
        return 2 * (len(self.classes) * width if points is None else len(points) * (width + len(self.classes)))

    def _stored(self) -> Iterable[Tensor]:
        """All that is kept to answer and to learn on, besides the backbone."""
        return self._tensors().values()

    def _moves(self) -> bool:
        """Whether the lesson under way moves the weights."""
        return self.adapts

    def _grow(self, classes: int) -> None:
        """Make room for so many new classes."""

    def _starts_from_features(self) -> bool:
        """Whether a lesson is looked at before it is taught, for `_start`."""
        return False

    def _start(self, features: Float[Tensor, "batch width"], klass: Int[Tensor, " batch"]) -> None:
        """Make ready by what the features of a lesson are before it moves the weights."""

    def _teach(self, stage: str, feed: Feed, klass: Int[Tensor, " example"]) -> Iterator[Step]:
        """Adapt to the classes of these examples; `klass` numbers them among all, new ones last."""
        return iter(())

    @abstractmethod
    def _trained(self) -> Linear:
        """The rows that gradients found for all classes."""

    def _tensors(self) -> dict[str, Tensor]:
        """What the learner is now, beyond what earlier entries hold."""
        return self.memory.tensors()

    def _entry(self, stage: Stage[Examples, Examples]) -> Entry:
        facts = {"what": "learn", "examples": len(stage.lesson), "settings": dict(self.settings), **self.learned}
        return self._write_down(stage.name, facts)

    def _write_down(self, name: str, facts: dict[str, Json]) -> Entry:
        kept = {**self._tensors(), **self._fitted()}
        tensors = {key: t.detach().to("cpu", copy=True) for key, t in kept.items()}
        return Entry(name, tensors, {"classes": list(self.classes), **facts})

    def _fitted(self) -> dict[str, Tensor]:
        """What is found again from what is kept, but slowly: with it a store that is opened answers at once."""
        if not (self.classes and self.head.slow):
            return {}
        weight, bias = self.folded_head()
        return {f"{self._fit}.weight": weight, f"{self._fit}.bias": bias}

    @property
    def _fit(self) -> str:
        """What a store calls the head as it was fitted: another head, or other shrinkage, has another name."""
        return f"fitted.{self.head_name}.{self.shrinkage!r}"

    def _absorb(self, entry: Entry) -> None:
        self.memory = Memory.from_tensors(entry.tensors)
        self.classes = known_names(entry.facts["classes"])
        if len(self.classes) != len(self.memory.statistics.mean):
            raise ValueError("the names of its classes are not those of its statistics")
        if f"{self._fit}.weight" in entry.tensors:
            self._folded = self.memory, (entry.tensors[f"{self._fit}.weight"], entry.tensors[f"{self._fit}.bias"])

    def _stands_on(self) -> dict[str, Json]:
        return {"backbone": self.backbone.identity()}

    @classmethod
    def _rebuild(cls, stands_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]) -> Self:
        backbone = given.get("backbone")
        if not isinstance(backbone, Backbone):
            backbone = reopened(stands_on["backbone"], backbone, given["store"])
        return cls(backbone, **settings)


def _require_threads() -> None:
    """Raises StoreError in a process that was forked after torch had started threads: it would wait for them for ever."""
    if torch.get_num_threads() > 1:
        require_own_process()
