"""Adapter that trains a copy of the backbone's weights."""

import copy
from collections.abc import Mapping
from typing import final

import torch
from torch import nn

from newcomer.backbones.backbone import Backbone
from newcomer.classes.parts import Adapter, autocast
from newcomer.errors import SettingError
from newcomer.nn.lora.decoupled_linear import AdaptedLinear
from newcomer.shapes import Float, Tensor

PREFIX = "weights."


@final
class TrainedWeights(Adapter):
    """A copy of weights of the backbone."""

    weights: dict[str, nn.Parameter]
    """Trained weights by name; empty before the first task."""

    def __init__(self, backbone: Backbone, parts: list[str] | None, precision: str, learner: str) -> None:
        """`parts`: train only weights whose names contain one of these; None: all. Errors are in the learner's name."""
        super().__init__(backbone)
        if backbone.dtype != torch.float32:
            raise SettingError(
                f"{learner}: the backbone's weights are trained, for which its dtype has too few digits; "
                "leave dtype out and give precision = 'bf16'"
            )
        self.encoder, self.precision = _shadow_model(backbone.model), precision
        owners = _parameter_owners(self.encoder)
        self._owners = {name: at for name, at in owners.items() if not parts or any(part in name for part in parts)}
        if not self._owners:
            raise SettingError(
                f"{learner}: weights = {parts!r} is in no weight's name of '{backbone.name}'; "
                f"names are like '{next(iter(owners))}'"
            )
        self._frozen = {name: _owned_parameter(at) for name, at in self._owners.items()}

    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        with autocast(self.backbone, self.precision):
            features: Tensor = self.backbone(encoded, self.encoder)
            return features.float()

    def encoder_weights(self) -> dict[str, Tensor]:
        """All trained weights, after the first task."""
        names = {id(p): name for name, p in self.backbone.model.named_parameters(remove_duplicate=False)}
        return {names[id(self._frozen[name])]: weight.detach() for name, weight in self.weights.items()}

    def open(self) -> None:
        """Copy the weights, before the first task."""
        if not self.weights:
            self.weights = {name: nn.Parameter(frozen.detach().clone()) for name, frozen in self._frozen.items()}
            self._set_weights(self.weights)

    def reset(self) -> None:
        self.weights = {}
        self._set_weights(self._frozen)

    def state(self) -> dict[str, Tensor]:
        return {PREFIX + name: weight for name, weight in self.weights.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        saved = {name: state[PREFIX + name] for name in self._owners if PREFIX + name in state}
        self.weights = {
            name: nn.Parameter(tensor.to(self.backbone.device, copy=True)) for name, tensor in saved.items()
        }
        self._set_weights(self.weights)

    def _set_weights(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Put these parameters into the model."""
        for name, weight in weights.items():
            for module, kind in self._owners[name]:
                setattr(module, kind, weight)


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
