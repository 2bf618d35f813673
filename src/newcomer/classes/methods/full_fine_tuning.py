"""Full fine-tuning: all weights of the backbone, trained on from task to task; what moves most, and forgets most."""

import copy
from collections.abc import Iterable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.training_loop import LossOver, Precision, Schedule, TrainedLearner, Training
from newcomer.errors import SettingError
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.lora.decoupled_linear import AdaptedLinear
from newcomer.settings import Json, checked
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative, Rate, Share

PREFIX = "weights."


class FullFineTuning(TrainedLearner):
    """Weights of its own, a copy of the backbone's to begin with, in a model of its own that shares what is not trained.

    The backbone itself stays as it was, so that others may stand on it, and compute with it at the same time. Every entry of a task
    holds all that is trained: a store grows by a backbone a task. On a stream of one stage it is joint training.

    - `weights`: train those alone whose names hold one of these parts, e.g. ["layer.10.", "layer.11."]; all by default.
    - `loss_over`: cross entropy over the logits of the 'new' classes, or of all classes 'seen'.
    - `learning_rate`: Adam's, for the backbone's weights; far below what an update that starts at zero bears.
    - `head_learning_rate`: for the trained rows.
    - the other settings are `SDLoRA`'s.

    Raises SettingError where `weights` names none.
    """

    name = "full-fine-tuning"

    weights: dict[str, nn.Parameter]
    """What is trained, by name; empty before the first task."""

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        weights: Annotated[list[str], Field(min_length=1)] | None = None,
        loss_over: LossOver = "new",
        head: HeadName = "linear",
        shrinkage: Share = 0.3,
        drift_map: bool = True,
        epochs: Count = 20,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 5e-5,
        head_learning_rate: Rate | None = 1e-3,
        schedule: Schedule = "constant",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        compile: bool = False,
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            backbone,
            loss_over=loss_over,
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
            compile=compile,
            cache_gib=cache_gib,
            device=device,
        )
        self._encoder = _shadow(self.backbone.model)
        places = _places(self._encoder)
        self._places = {name: at for name, at in places.items() if not weights or any(part in name for part in weights)}
        if not self._places:
            raise SettingError(
                f"FullFineTuning: weights = {weights!r} is part of no weight's name of '{self.backbone.name}';"
                f" they are like '{next(iter(places))}'"
            )
        self._frozen = {name: _held(at) for name, at in self._places.items()}
        self._clear()

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """The backbone's weights, and the head's."""
        return {"factors": list(self.weights.values()), "head": list(self.rows.parameters())}

    def encoder_weights(self) -> dict[str, Tensor]:
        """All that is trained, once a task has."""
        names = {id(p): name for name, p in self.backbone.model.named_parameters(remove_duplicate=False)}
        return {names[id(self._frozen[name])]: own.detach() for name, own in self.weights.items()}

    def _see(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        lower = self.training.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            return super()._see(encoded).float()

    def _put(self, weights: Mapping[str, nn.Parameter]) -> None:
        """The model computes with these."""
        for name, weight in weights.items():
            for module, kind in self._places[name]:
                setattr(module, kind, weight)

    def _open(self, stage: str) -> None:
        if not self.weights:
            self.weights = {name: nn.Parameter(frozen.detach().clone()) for name, frozen in self._frozen.items()}
            self._put(self.weights)

    def _close(self) -> None:
        self._moved = True

    def _clear(self) -> None:
        super()._clear()
        self.weights = {}
        self._put(self._frozen)
        self._moved = False

    def _tensors(self) -> dict[str, Tensor]:
        moved = {PREFIX + name: own for name, own in self.weights.items()} if self._moved else {}
        return {**super()._tensors(), **moved}

    def _write_down(self, name: str, facts: dict[str, Json]) -> Entry:
        entry = super()._write_down(name, facts)
        self._moved = False  # until a task moves them again, the entries hold them
        return entry

    def _stored(self) -> Iterable[Tensor]:
        return [*super()._tensors().values(), *self.weights.values()]

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        saved = {name: entry.tensors[PREFIX + name] for name in self._places if PREFIX + name in entry.tensors}
        self.weights |= {name: nn.Parameter(tensor.to(self.device, copy=True)) for name, tensor in saved.items()}
        self._put(self.weights)


def _shadow(model: nn.Module) -> nn.Module:
    """A model of modules of its own that hold the very same parameters and buffers."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def _held(places: list[tuple[nn.Module, str]]) -> nn.Parameter:
    module, kind = places[0]
    held: nn.Parameter = getattr(module, kind)
    return held


def _places(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Each parameter by its name, with the modules that hold it and what they call it.

    A name is the same whether another learner has put an `AdaptedLinear` around its layer or not; modules stay where they are.
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
