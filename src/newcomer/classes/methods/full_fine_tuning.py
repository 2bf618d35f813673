"""Full fine-tuning of the backbone, task after task."""

import copy
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, CompiledRuntime, LossClasses, Training
from newcomer.classes.training_loop import GradientLearner
from newcomer.errors import SettingError
from newcomer.nn.lora.decoupled_linear import AdaptedLinear
from newcomer.settings import Json
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry

PREFIX = "weights."


class FullFineTuning(GradientLearner):
    """Trains a copy of the backbone's weights, in a model that shares with the backbone what is not trained.

    The backbone itself does not change, so other learners may use it at the same time. The entry of every task holds all trained
    weights: a store grows by one backbone a task. On a stream of one stage it is joint training.

    - `weights`: train only weights whose names contain one of these parts, e.g. ["layer.10.", "layer.11."]; all by default.
    - `loss_classes`: cross entropy over the logits of the 'new' classes, or of all classes 'seen'.
    - `classifier`, `training`, `runtime`: see `classes.configuration`. `learning_rate` is of the backbone's weights, far below that
      of low-rank updates; `head_learning_rate` of the linear head.

    Raises SettingError if `weights` matches no name.
    """

    name = "full-fine-tuning"

    weights: dict[str, nn.Parameter]
    """Trained weights by name; empty before the first task."""

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        weights: Annotated[list[str], Field(min_length=1)] | None = None,
        loss_classes: LossClasses = "new",
        classifier: Classifier = Classifier(),
        training: Training = Training(learning_rate=5e-5, head_learning_rate=1e-3),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        super().__init__(backbone, loss_classes=loss_classes, training=training, classifier=classifier, runtime=runtime)
        self._encoder = _shadow_model(self.backbone.model)
        owners = _parameter_owners(self._encoder)
        self._owners = {name: at for name, at in owners.items() if not weights or any(part in name for part in weights)}
        if not self._owners:
            raise SettingError(
                f"FullFineTuning: weights = {weights!r} is in no weight's name of '{self.backbone.name}'; "
                f"names are like '{next(iter(owners))}'"
            )
        self._frozen = {name: _owned_parameter(at) for name, at in self._owners.items()}
        self._reset()

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """The backbone's weights and those of the linear head."""
        return {"factors": list(self.weights.values()), "head": list(self.linear_head.parameters())}

    def encoder_weights(self) -> dict[str, Tensor]:
        """All trained weights, after the first task."""
        names = {id(p): name for name, p in self.backbone.model.named_parameters(remove_duplicate=False)}
        return {names[id(self._frozen[name])]: weight.detach() for name, weight in self.weights.items()}

    def _encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        mixed = self.training.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            return super()._encode(encoded).float()

    def _set_weights(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Put these parameters into the model."""
        for name, weight in weights.items():
            for module, kind in self._owners[name]:
                setattr(module, kind, weight)

    def _begin_task(self, stage: str) -> None:
        if not self.weights:
            self.weights = {name: nn.Parameter(frozen.detach().clone()) for name, frozen in self._frozen.items()}
            self._set_weights(self.weights)

    def _end_task(self) -> None:
        self._trained_since_entry = True

    def _reset(self) -> None:
        super()._reset()
        self.weights = {}
        self._set_weights(self._frozen)
        self._trained_since_entry = False

    def _tensors(self) -> dict[str, Tensor]:
        trained = {PREFIX + name: weight for name, weight in self.weights.items()} if self._trained_since_entry else {}
        return {**super()._tensors(), **trained}

    def _record_entry(self, name: str, info: dict[str, Json]) -> Entry:
        entry = super()._record_entry(name, info)
        self._trained_since_entry = False
        return entry

    def _stored_tensors(self) -> Iterable[Tensor]:
        return [*super()._tensors().values(), *self.weights.values()]

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        saved = {name: entry.tensors[PREFIX + name] for name in self._owners if PREFIX + name in entry.tensors}
        self.weights |= {name: nn.Parameter(tensor.to(self.device, copy=True)) for name, tensor in saved.items()}
        self._set_weights(self.weights)


def _shadow_model(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares all parameters and buffers."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def _owned_parameter(owners: list[tuple[nn.Module, str]]) -> nn.Parameter:
    module, attribute = owners[0]
    parameter: nn.Parameter = getattr(module, attribute)
    return parameter


def _parameter_owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Each parameter's name with the modules that own it and its attribute there.

    Names do not depend on whether another learner has wrapped the layer in an `AdaptedLinear`.
    """
    names: dict[int, str] = {}
    found: dict[str, list[tuple[nn.Module, str]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner, _, kind = name.rpartition(".")
        layer = owner.removesuffix(".frozen")
        if not isinstance(model.get_submodule(layer), AdaptedLinear):
            layer = owner
        plain = names.setdefault(id(parameter), f"{layer}.{kind}")
        found.setdefault(plain, []).append((model.get_submodule(owner), kind))
    return found
