"""scikit-learn estimator: a classifier of images, texts or feature arrays whose `partial_fit` takes new classes."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.heads import HeadName, StatisticsHeadChoice, make_head
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.errors import DataError, SettingError
from newcomer.nn.heads.head import Prior
from newcomer.registry import find_learner
from newcomer.settings import fill
from newcomer.shapes import Float, Int, Tensor

FEATURES = "features"
"""Backbone name: the inputs are feature arrays, and nothing computes features."""


class NewcomerClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Class-incremental classifier with the interface of scikit-learn.

    `fit` starts anew; every `partial_fit` is one task: classes that are new are added, examples of known classes update their
    statistics. No example is stored.

    - `backbone`: 'features' for arrays [example, feature]; else a pre-trained encoder by its name on the hub or its folder, and
      inputs are images or texts (see `Examples`).
    - `learner`: name of a class learner, such as 'sd-lora' or 'ranpac'; with 'features' there is nothing to adapt, and no other
      than 'frozen'.
    - `head`: 'lda', 'ridge', 'prototypes', 'gaussian' or 'kernel' (`nn.heads`), or 'auto', the one of least held-out loss.
    - `shrinkage`: of covariances towards a multiple of the identity.
    - `prior`: 'uniform': every class is as likely, however many examples it has; 'empirical': as likely as it is frequent.
    - `settings`: further settings of the learner, such as {"epochs": 5}.
    - `random_state`: seed.

    `fit` and `partial_fit` raise SettingError for arguments that cannot be, DataError for an encoder that cannot be loaded and for
    inputs that the backbone does not read.

    Attributes: `classes_`, sorted; `n_features_in_` with 'features'; `learner_`, the `ClassLearner` behind it, otherwise.

    >>> model = NewcomerClassifier().fit([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]], ["a", "a", "b", "b"])
    >>> model.partial_fit([[-1.0, 0.0], [-0.9, 0.1]], ["c", "c"]).predict([[-1.0, 0.1]]).tolist()
    ['c']
    """

    classes_: NDArray[Any]
    learner_: ClassLearner
    _memory: ClassMemory
    _weight: Tensor
    _bias: Tensor

    def __init__(
        self,
        backbone: str = FEATURES,
        *,
        learner: str = "frozen",
        head: StatisticsHeadChoice = "lda",
        shrinkage: float = 0.3,
        prior: Prior = "uniform",
        settings: dict[str, Any] | None = None,
        random_state: int = 0,
    ) -> None:
        self.backbone, self.learner, self.head = backbone, learner, head
        self.shrinkage, self.prior, self.settings, self.random_state = shrinkage, prior, settings, random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803  # scikit-learn's names
        """Learn from these examples alone; what was learned before is lost."""
        for name in ("classes_", "learner_", "_memory", "_labels"):
            self.__dict__.pop(name, None)
        return self._learn(X, y, reset=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:  # noqa: N803
        """Learn one more task; `classes` is accepted for compatibility: classes need not be known beforehand."""
        return self._learn(X, y, reset=not hasattr(self, "classes_"))

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The most probable class of each input."""
        check_is_fitted(self)
        found: NDArray[Any] = self.classes_[self._logits(X).argmax(1).numpy()]
        return found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Calibrated probabilities: array [input, class] in the order of `classes_`."""
        check_is_fitted(self)
        probabilities: NDArray[np.float64] = self._logits(X).double().softmax(1).numpy()
        return probabilities

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = self.backbone != FEATURES
        tags.input_tags.two_d_array = self.backbone == FEATURES
        tags.classifier_tags.poor_score = False
        return tags

    def _learn(self, inputs: Any, y: Any, reset: bool) -> Self:
        self._require_settings()
        self._require_kind(inputs)
        if self.backbone == FEATURES:
            inputs, y = validate_data(self, inputs, y, reset=reset, dtype=np.float32)
        check_classification_targets(y)
        y = np.asarray(y)
        new = np.unique(y)
        # labels in the order in which they were learned, as a memory has them
        known = list(getattr(self, "_labels", []))
        self._labels = known + [label for label in new.tolist() if label not in known]
        index = {label: n for n, label in enumerate(self._labels)}
        target = torch.tensor([index[label] for label in y.tolist()])
        if self.backbone == FEATURES:
            self._update(torch.from_numpy(np.ascontiguousarray(inputs)), target)
        else:
            if not hasattr(self, "learner_"):
                self.learner_ = self._make_learner()
            self.learner_.learn(Examples(inputs, [str(n) for n in target.tolist()]))
        dtype = np.result_type(y.dtype, self.classes_.dtype) if hasattr(self, "classes_") else y.dtype
        self.classes_ = np.unique(np.array(self._labels, dtype=dtype))
        position = {label: n for n, label in enumerate(self.classes_.tolist())}
        self._order = [index[label] for label in sorted(self._labels, key=position.__getitem__)]
        return self

    def _require_settings(self) -> None:
        if not isinstance(self.backbone, (str, Path)):
            raise SettingError(
                f"NewcomerClassifier: backbone = {self.backbone!r} cannot be: give '{FEATURES}' for arrays, or an encoder's "
                "name or folder"
            )
        if self.backbone != FEATURES:
            return
        if self.settings or self.learner != FrozenBackbone.name:
            raise SettingError(
                f"NewcomerClassifier: with backbone = '{FEATURES}' nothing is trained; leave learner and settings out, or give an "
                "encoder"
            )
        given = {"head": self.head, "shrinkage": self.shrinkage, "prior": self.prior}
        fill(FrozenBackbone, given, "NewcomerClassifier", provided=["backbone"])

    def _require_kind(self, inputs: Any) -> None:
        """Raises DataError for texts, paths and images where features are expected, and for features where they are not."""
        shape = getattr(inputs, "shape", ())
        first = next(iter(inputs), None) if isinstance(inputs, (list, tuple)) or len(shape) == 1 else inputs
        if self.backbone == FEATURES and isinstance(first, (str, Path, Image)):
            raise DataError(
                f"NewcomerClassifier: inputs of type {type(first).__name__}, but backbone = '{FEATURES}' takes arrays of numbers; "
                "for images or texts give an encoder"
            )
        if self.backbone != FEATURES and (len(shape) == 2 or isinstance(first, (list, tuple))):
            raise DataError(
                f"NewcomerClassifier: inputs are an array of numbers, but backbone = '{self.backbone}' reads images or texts; for "
                f"features leave it at '{FEATURES}'"
            )

    def _make_learner(self) -> ClassLearner:
        kind: Any = find_learner(self.learner)
        if not issubclass(kind, ClassLearner):
            raise SettingError(
                f"NewcomerClassifier: learner = '{self.learner}' is a click model; give a learner of classes"
            )
        own = {"head": self.head, "shrinkage": self.shrinkage, "prior": self.prior, "seed": self.random_state}
        settings = own | (self.settings or {})
        try:
            learner: ClassLearner = kind(self.backbone, **settings)
        except DataError as error:
            raise DataError(f"{error}; for arrays of features leave it at '{FEATURES}'") from None
        return learner

    def _update(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> None:
        memory = getattr(self, "_memory", None) or ClassMemory.empty(features.shape[1])
        untrained = torch.zeros(len(self._labels), features.shape[1]), torch.zeros(len(self._labels))
        name: HeadName
        if self.head == "auto":
            memory = memory.with_judged_heads(features, target, self.shrinkage, self.prior)
            name = memory.best_head()
        else:
            name = self.head
        self._memory, _ = memory.with_task(features, target, name, self.shrinkage, untrained, [name], self.prior)
        self._head = make_head(name, self.shrinkage, self.prior)
        self._weight, self._bias = self._memory.classifier(name, self.shrinkage, self.prior, untrained)

    def _logits(self, inputs: Any) -> Float[Tensor, "batch class"]:
        self._require_kind(inputs)
        if self.backbone != FEATURES:
            return self.learner_.logits(inputs)[:, self._learner_order()]
        features = validate_data(self, inputs, reset=False, dtype=np.float32)
        terms = self._head.terms(self._memory.statistics, torch.from_numpy(np.ascontiguousarray(features)))
        logits: Tensor = terms.float() @ self._weight.T + self._bias
        return logits[:, self._order]

    def _learner_order(self) -> list[int]:
        """Columns of the learner's logits in the order of `classes_`."""
        column = {name: n for n, name in enumerate(self.learner_.classes)}
        return [column[str(index)] for index in self._order]
