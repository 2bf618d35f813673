"""Base class of class-incremental classifiers: a task's way through the parts of a learner, and predictions."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.reloading import reload_backbone
from newcomer.backbones.sharding import Sharding, require_several
from newcomer.backbones.text_tower import text_embeddings
from newcomer.classes.class_history import FIRST_EXAMPLES, NEW_CLASSES, classes_after
from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.classifier import FeatureClassifier
from newcomer.classes.configuration import Runtime
from newcomer.classes.cost import flops, numbers
from newcomer.classes.loader import Loader
from newcomer.classes.name_texts import described, name_texts
from newcomer.classes.parts import Adapter, Learned, Part, Steps, Task
from newcomer.classes.predictions import Prediction, choices, ranked
from newcomer.classes.training_loop import TrainingLoop
from newcomer.data.class_names import class_name, known_names
from newcomer.data.example_digest import examples_digest
from newcomer.data.examples import Examples, Input, Subset, require_examples
from newcomer.data.inputs import LoadedInputs, as_inputs, is_single
from newcomer.errors import DataWarning, LearnerError, NewcomerError, SettingError, nearest
from newcomer.nn.heads.head import WeightBias
from newcomer.printable import counted, listed, stage_title
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.entry import Entry
from newcomer.streams.stage import Stage
from newcomer.training.fit import chunks, evaluating
from newcomer.training.forks import require_own_process
from newcomer.training.learner import Learner, Progress, Step
from newcomer.training.processes import Processes

EVAL_BATCH = 64
"""Examples in a forward pass without gradients."""
PREDICT_BATCH = 1024
"""Texts predicted at once, those of similar length together."""
GIB = 2**30
DATA = "data"
"""Entry of a stage's information: digest of its examples."""

One = Input | bytes | IO[bytes] | NDArray[Any]
Many = Sequence[Any] | Iterable[Any]
Given = One | Many
"""Inputs of a prediction: see `Examples`."""


class ClassLearner(Learner[Examples, Examples]):
    """A classifier on a pre-trained backbone that learns new classes task by task.

    It is made of parts: an adapter of the backbone, a training loop (None: nothing is trained), a classifier of the features, and
    what else a method keeps. A subclass chooses them in its constructor and says how a task trains the adapter (`_train`); then the
    features of the task's examples update the classifier. A store's entry holds what the task added, and the `state` of every part.
    No example is stored.
    """

    classes: list[str]
    """Names of all known classes, in the order of the logits."""

    def __init__(
        self,
        adapter: Adapter,
        loop: TrainingLoop | None,
        classifier: FeatureClassifier,
        runtime: Runtime,
        *others: Part,
    ) -> None:
        super().__init__()
        self.adapter, self.loop, self.classifier = adapter, loop, classifier
        self.parts = [classifier, *([] if loop is None else [loop]), adapter, *others]
        self.backbone, self.cache_gib = adapter.backbone, runtime.cache_gib
        self.processes = Processes(runtime.device)
        self.device = self.processes.device
        self._reset()

    @abstractmethod
    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        """Train the adapter on a task, by one or more calls of `loop.fit`. Returns what the task adds to its entry."""

    def _after_training(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        task: Task | None,
        loop: TrainingLoop,
    ) -> None:
        """What else a method does with the features of a task's examples, before the classifier gets them.

        `target` are indices into all classes; `task` is None where nothing was trained.
        """

    def _adapts_now(self) -> bool:
        """Whether the current task trains the adapter, so that the statistics of old classes must be mapped along."""
        return self.loop is not None

    def _decide(self, stage: Stage[Examples, Examples]) -> Generator[Step, None, Mapping[str, Json]]:
        """Called for a task that is to train the adapter. Returns information for its entry; 'adapted' false: it trains nothing."""
        yield from ()
        return {}

    def __repr__(self) -> str:
        backbone = Path(self.backbone.name).name if self.backbone.folder else self.backbone.name
        if not self.classes:
            return f"{type(self).__name__}({backbone!r}, no classes)"
        tasks = sum(entry.info["what"] == "learn" for entry in self.entries)
        learned = f"{counted(len(self.classes), 'class', 'classes')} after {counted(tasks, 'task')}"
        return f"{type(self).__name__}({backbone!r}, {learned}: {listed(self.classes)})"

    def learn(self, examples: Examples, *, progress: Progress | None = None) -> Self:
        """Learn one task from these examples. Returns the learner.

        New classes are added. Examples of known classes update the statistics of their class. A task of a single class, or of
        classes that all had examples before, does not adapt the backbone.
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

    @property
    def next_stage(self) -> str:
        """Name of the stage that `learn` would add now."""
        return f"task {sum(entry.info['what'] == 'learn' for entry in self.entries)}"

    def learn_names(self, names: Sequence[str] | Mapping[str, str], *, template: str | None = None) -> Self:
        """Add classes by their names alone, without examples (zero-shot). Returns the learner.

        `names`: the classes, or descriptions of them by name, among which known classes may be whose names are codes. A `template`
        has {} where the name of a class without description shall stand: by default 'a photo of a {}.' for images, and the name
        itself for texts; underscores are read as spaces. A backbone of images must be the vision tower of CLIP or SigLIP: its text
        tower reads the names.

        How names and features belong together is learned from the known classes, of which at least three have examples: see
        `nn.features.name_regression`. A name counts as five examples of its class. More examples may be learned later, and count
        beside it.

        >>> from newcomer import FrozenBackbone
        >>> texts = Examples(["where is my card", "my card is lost", "please top up", "top up failed", "a refund", "refund me"],
        ...     ["card", "card", "top_up", "top_up", "refund", "refund"])
        >>> intents = FrozenBackbone("sentence-transformers/all-MiniLM-L6-v2").learn(texts)
        >>> intents.learn_names({"rate": "what is the exchange rate"}).predict("how many dollars do I get for euros")
        'rate'

        Raises LearnerError for a class that is known, for names that do not tell known classes apart, for fewer than three classes
        with examples, and a method without class means; DataError for a backbone of images without text tower; SettingError for a
        template without {}.
        """
        self._require_not_training()
        for part in self.parts:
            part.require_names()
        rows = (~self.memory.named).nonzero()[:, 0].tolist()
        new, known = described(names), dict.fromkeys(self.classes, "")
        for name in [name for name in new if name in known]:
            if not new[name].strip() or self.memory.named[self.classes.index(name)]:
                raise LearnerError(f"class '{name}' is known; give examples to `learn`, or `forget` it first")
            known[name] = new.pop(name)
        if not new:
            raise LearnerError(
                "all of these classes are known; give one that is not, beside descriptions of known ones"
            )
        if len(rows) < 3:
            raise LearnerError(
                f"{counted(len(rows), 'class has', 'classes have')} examples, and three are needed to learn how names and features "
                "belong together; learn examples first"
            )
        texts = name_texts(known, new, template, self.backbone.reads_images)
        filled = [*(texts[self.classes[row]] for row in rows), *(texts[name] for name in new)]
        embedded = text_embeddings(self.backbone, filled) if self.backbone.reads_images else self.features(filled)
        explained = self.classifier.learn_names(embedded[: len(rows)], rows, embedded[len(rows) :])
        if self.loop is not None:
            self.loop.linear_head.grow(len(new))
        self.classes = [*self.classes, *new]
        number = sum(entry.info["what"] == "names" for entry in self.entries)
        info: dict[str, Json] = {"what": "names", NEW_CLASSES: list(new), "texts": filled[len(rows) :]}
        self._append(self._make_entry(f"names {number}", {**info, "names explain": explained}))
        return self

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
        self.classes = [self.classes[k] for k in kept]
        for part in self.parts:
            part.keep(kept)
        self._append(self._make_entry(f"forget {name}", {"what": "forget", "class": name}))
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
        return self.classifier.linear_classifier()

    @property
    def memory(self) -> ClassMemory:
        """Class statistics, kept in place of examples."""
        return self.classifier.memory

    @property
    def support_points(self) -> Float[Tensor, "point width"] | None:
        """Support points of a kernel head; None for a head that is linear in the features."""
        return self.classifier.support_points

    def novelty(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Novelty scores: distance to the nearest known class, see `nn.features.novelty`."""
        return self.classifier.novelty(features)

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

        Raises LearnerError for a model that is not the backbone with other weights and a head, and for a sharded backbone.
        """
        self.require_whole("an export")
        weights = self.adapter.encoder_weights() if self.classifier.is_linear else None
        if weights is None:
            raise LearnerError(
                f"{type(self).__name__} is not only an encoder with other weights, so it cannot be exported"
            )
        return weights

    def require_whole(self, what: str) -> None:
        """Raises LearnerError if the backbone's weights are spread over processes, and none has what it takes."""
        if self.backbone.sharding is not None:
            raise LearnerError(
                f"{what} takes whole weights, which shard_backbone spreads over the processes; save the learner, and open the "
                "store in one process"
            )

    def _fit_stage(self, stage: Stage[Examples, Examples]) -> Generator[Step, None, Entry]:
        _require_threads()
        require_examples(stage.train, f"stage '{stage_title(stage.name)}'")
        self._agree(f"learn {counted(len(stage.train), 'example')}")
        if not len(stage.train):
            raise LearnerError(f"stage '{stage_title(stage.name)}' has no examples to learn from")
        digest = examples_digest(stage.train)
        self._warn_if_learned(digest, stage.train.classes)
        labels, inputs = stage.train.labels, self._loaded(stage.train.inputs)
        class_index = {name: i for i, name in enumerate(dict.fromkeys([*self.classes, *labels]))}
        target, new = torch.tensor([class_index[label] for label in labels]), len(class_index) - len(self.classes)
        count = torch.bincount(target, minlength=len(class_index))
        first = count * torch.cat(
            [self.memory.named, torch.ones(new, dtype=torch.bool)]
        )  # examples of classes without any so far
        is_first = bool(first.any())
        several = len(torch.unique(target)) > 1
        settings, adapts = self.classifier.settings, self._adapts_now()
        decision: Mapping[str, Json] = {}
        if settings.head == "linear" and is_first and not several:
            raise LearnerError(
                "the linear head learns nothing from a single class; give two or more, or --set head=lda"
            )
        if settings.head == "linear" and not is_first:
            warnings.warn(
                "all of these classes are known: they count in the class statistics, and no predicted class changes, as the "
                "linear head learns from tasks with new classes alone; --set head=lda learns from more examples of a class too",
                DataWarning,
                stacklevel=3,
            )
        if adapts and is_first and several:
            decision = yield from self._decide(stage)
            adapts = bool(decision.get("adapted", True))
        loop = self.loop if (adapts or settings.head == "linear") and is_first and several else None
        initializes = loop is not None and loop.training.head_init != "zero"
        maps_drift = loop is not None and adapts and settings.drift_map and bool(self.classes)
        loader = Loader(self.backbone, inputs, self.cache_gib * GIB)
        loader.read([0])  # inputs of the wrong kind are refused at once
        more = self._unlabelled(stage, maps_drift)
        old, learned, task = torch.zeros(0), Learned(), None
        judges = settings.head == "auto" and is_first
        if initializes or maps_drift or (judges and loop is not None):
            old = yield from self._extract_features(f"{stage.name}, before", loader)
        old_more, drifted = torch.zeros(0), None
        if more is not None:
            old_more = yield from self._extract_features(f"{stage.name}, unlabelled before", more)
        if judges and loop is not None:
            self.classifier.judge_heads(old, target)
        if self.loop is not None:
            self.loop.linear_head.grow(new)
        if loop is not None:
            if initializes:
                loop.init_head(self.memory, settings.shrinkage, old, target)
            task = Task(
                stage.name, loader, target, known=len(self.classes), seed=loop.training.seed, prior=settings.prior
            )
            learned = yield from self._train(task, loop)
        features = yield from self._extract_features(f"{stage.name}, after", loader)
        if not features.isfinite().all():
            raise LearnerError("the features are not finite; lower the learning rate")
        if more is not None:
            drifted = old_more, (yield from self._extract_features(f"{stage.name}, unlabelled after", more))
        info: dict[str, Json] = {"what": "learn", "examples": len(stage.train), "settings": dict(self.settings)}
        info |= {} if digest is None else {DATA: digest}
        info |= {NEW_CLASSES: list(class_index)[len(self.classes) :], **decision, **learned.info}
        if named := [name for name, examples in zip(self.classes, first.tolist(), strict=False) if examples]:
            info[FIRST_EXAMPLES] = named
        if maps_drift:
            info["drift explained"] = self.classifier.map_drift(old, features, target, drifted)
        if more is not None:
            info["unlabelled"] = len(more.inputs)
        if judges and loop is None:
            self.classifier.judge_heads(features, target)
        if self.loop is not None:
            self._after_training(features, target, task, self.loop)
        if is_first and int(first.max()) < 2:
            warnings.warn(
                f"{stage_title(stage.name)}: no new class has two examples, so none can be held out: probabilities and rejection "
                "are not calibrated by it; give two or more of a class",
                DataWarning,
                stacklevel=3,
            )
        self.classes = list(class_index)
        updated = self.classifier.update(features, target)
        cost = self._cost(loader, 0 if loop is None else loop.parameter_count)
        return self._make_entry(stage.name, {**info, **updated.info, "cost": cost}, learned, updated)

    def _unlabelled(self, stage: Stage[Examples, Examples], maps_drift: bool) -> Loader | None:
        """The stage's unlabelled inputs, if it maps drift; a warning if it does not, and they are left alone.

        Raises LearnerError for a learner without a drift map, which is all that they are for.
        """
        if not stage.train.unlabelled:
            return None
        if self.loop is None or not self.classifier.settings.drift_map:
            raise LearnerError(
                f"{stage_title(stage.name)}: unlabelled inputs are for the drift map, and this {type(self).__name__} has none; "
                "leave them out, or take a learner that trains its backbone, with drift_map = true"
            )
        if not maps_drift:
            warnings.warn(
                f"{stage_title(stage.name)}: the unlabelled inputs are not used: there is no drift to map before a second task "
                "that trains the backbone",
                DataWarning,
                stacklevel=4,
            )
            return None
        more = Loader(self.backbone, self._loaded(stage.train.unlabelled), self.cache_gib * GIB)
        more.read([0])
        return more

    def _warn_if_learned(self, digest: str | None, classes: Sequence[str]) -> None:
        """DataWarning for the examples of an earlier stage, unless one of their classes was forgotten since."""
        for entry in reversed(self.entries) if digest is not None else ():
            if entry.info["what"] == "forget" and entry.info["class"] in classes:
                return
            if entry.info.get(DATA) == digest:
                warnings.warn(
                    f"these are the examples of {stage_title(entry.name)}, learned again: they count twice in the class statistics",
                    DataWarning,
                    stacklevel=4,
                )
                return

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
        features = torch.empty(len(rows), self.adapter.width)
        self._agree(f"features of {counted(len(rows), 'input')}")
        with evaluating(self.backbone):
            for part in chunks(len(order), EVAL_BATCH):
                batch = order[part.start : part.stop]
                encoded = self.backbone.to_device(loader.read(batch))
                features[[position[row] for row in batch]] = self.adapter.encode(encoded).float().cpu()
        self._require_not_training()
        if len(self.entries) != stages:
            raise LearnerError(f"this {type(self).__name__} was trained by another thread meanwhile; predict again")
        return features

    def _agree(self, what: str) -> None:
        """Where every pass is one of all processes: raises LearnerError unless all are about to make as many."""
        if self.backbone.sharding is not None:
            self.backbone.sharding.agree(what)

    def _novelty_threshold(self, reject: float | None) -> float | None:
        """Novelty score above which an input is rejected; None: none is."""
        if reject is None:
            return None
        self._require_classes()
        if named := int(self.memory.named.sum()):
            warnings.warn(
                f"{counted(named, 'class is', 'classes are')} known by name alone: more of their inputs than reject = {reject:g} "
                "may be refused; learn examples of them",
                DataWarning,
                stacklevel=3,
            )
        limit = self.memory.threshold(reject)
        if limit == float("inf"):
            raise LearnerError("too few examples for a rejection threshold; learn at least two of a class")
        if reject and (known := self.memory.held_out_novelty) < (needed := 1 / reject - 1):
            warnings.warn(
                f"reject = {reject:g}: that takes {needed:.0f} examples of known classes, and there are as good as {known:.0f}: "
                "more known inputs than this share may be refused; learn more of the smallest classes",
                DataWarning,
                stacklevel=3,
            )
        return limit

    def _predictions(self, features: Float[Tensor, "batch width"], top: int, limit: float | None) -> list[Prediction]:
        known = [True] * len(features) if limit is None else (self.novelty(features) <= limit).tolist()
        return ranked(self._logits(features).softmax(1), self.classes, top, known)

    def _extract_features(self, part: str, loader: Loader) -> Generator[Step, None, Float[Tensor, "batch width"]]:
        """Features of a task's examples, summed over processes."""
        features = torch.zeros(len(loader.inputs), self.adapter.width, device=self.device)
        order = self.backbone.sort_by_length(loader.inputs, range(len(loader.inputs)))

        def encode(rows: Sequence[int], encoded: Mapping[str, Tensor]) -> None:
            features[rows] = self.adapter.encode(encoded).float()

        yield from self._pass(part, loader, order, encode)
        self.processes.add_up([features])
        return features.cpu()

    def _pass(
        self,
        part: str,
        loader: Loader,
        order: Sequence[int],
        use: Callable[[Sequence[int], Mapping[str, Tensor]], None],
    ) -> Iterator[Step]:
        """One pass without gradients over this process's share of these rows; `use` gets the rows of a batch and their inputs."""
        size = EVAL_BATCH * self.processes.count
        plan = [self.processes.share(order[part.start : part.stop]) for part in chunks(len(order), size)]
        with closing(loader.batches([rows for rows in plan if rows])) as tensors:
            for step, rows in enumerate(plan, 1):
                with evaluating(self.backbone):
                    if rows:
                        use(rows, self.backbone.to_device(next(tensors)))
                    elif self.backbone.sharding is not None:  # the others need this process's shards
                        self.adapter.encode(self.backbone.to_device(loader.read(order[:1])))
                yield Step(part, step, len(plan))

    def _require_classes(self) -> None:
        if not self.classes:
            raise LearnerError(f"{type(self).__name__} has learned no class; call learn first")

    def _logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        """The classifier's logits of these features."""
        self._require_classes()
        return self.classifier.logits(features)

    def _cost(self, loader: Loader, parameters: int) -> dict[str, Json]:
        """See `info`."""
        with evaluating(self.backbone):
            encoded = self.backbone.to_device(loader.read([0]))
            operations = flops(lambda: self.adapter.encode(encoded)) + self.classifier.flops()
        return {
            "passes": self.adapter.passes,
            "gflops": operations / 1e9,
            "parameters": parameters,
            "stored": numbers(self._stored_tensors()),
        }

    def _stored_tensors(self) -> Iterable[Tensor]:
        """All tensors needed to predict and to learn further tasks, besides the backbone."""
        return [tensor for part in self.parts for tensor in part.all_tensors()]

    def _reset(self) -> None:
        self.classes = []
        for part in self.parts:
            part.reset()

    def _make_entry(self, name: str, info: dict[str, Json], *added: Learned) -> Entry:
        """The entry of a stage: what it added, and the `state` of every part."""
        tensors = {key: t for learned in added for key, t in _on_cpu(learned.tensors, copy=True).items()}
        states = [_on_cpu(part.state(), copy=not part.replaces_state) for part in self.parts]
        return Entry(name, tensors, info, {key: t for state in states for key, t in state.items()})

    def _apply_entries(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            for part in self.parts:
                part.add(entry.tensors)
        state = entries[-1].state if entries else None
        if state is not None:
            for part in self.parts:
                part.restore(state)
        self.classes = known_names(classes_after(entries))
        if len(self.classes) != self.memory.classes:
            raise ValueError("class names and class statistics differ in number")
        if self.memory.named.any():
            for part in self.parts:  # another head may have been chosen since
                part.require_names()

    def _depends_on(self) -> dict[str, Json]:
        return {"backbone": self.backbone.identity()}

    @classmethod
    def _from_manifest(
        cls, depends_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]
    ) -> Self:
        backbone = given.get("backbone")
        if not isinstance(backbone, Backbone):
            backbone = reload_backbone(depends_on["backbone"], backbone, given["store"])
        make: Callable[..., Self] = cls  # a subclass, which takes a backbone and its settings
        return make(backbone, **settings)


def open_backbone(backbone: Backbone | str, runtime: Runtime, whole_for: str | None = None) -> Backbone:
    """The backbone, on the device of this runtime, or sharded over its processes.

    Raises SettingError if it cannot be sharded; `whole_for` names a method that takes no sharded one.
    """
    processes = Processes(runtime.device)
    if runtime.shard_backbone:
        require_several(processes)
    opened = Backbone(backbone) if isinstance(backbone, (str, Path)) else backbone
    if whole_for and (runtime.shard_backbone or opened.sharding is not None):
        raise SettingError(
            f"{whole_for}: shard_backbone: it trains or merges whole weights of the backbone; leave it out, or take another method"
        )
    if runtime.shard_backbone and opened.sharding is None:
        processes.agree(f"open backbone {opened.fingerprint}")
        opened.sharding = Sharding(opened.name, opened.model, processes)
    opened.to(processes.device)
    return opened


def _on_cpu(tensors: Mapping[str, Tensor], copy: bool) -> dict[str, Tensor]:
    return {key: t.detach().to("cpu", copy=copy) for key, t in tensors.items()}


def _require_threads() -> None:
    """Raises StoreError in a process forked after torch had started threads, where it would deadlock."""
    if torch.get_num_threads() > 1:
        require_own_process()
