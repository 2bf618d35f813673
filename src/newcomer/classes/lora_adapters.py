"""Adapters that are low-rank updates (LoRA) of the query and value projections."""

from collections.abc import Iterable, Mapping
from typing import final

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.parts import Adapter, Encode, autocast
from newcomer.errors import LearnerError, SettingError
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA, Sharing
from newcomer.shapes import Float, Tensor


def low_rank_updates(backbone: Backbone, largest_rank: int, learner: str, sharing: Sharing = "shared") -> DecoupledLoRA:
    """Low-rank updates of the backbone's projections, none so far.

    Raises LearnerError for a backbone without known projections; SettingError, in the learner's name, for a rank above theirs.
    """
    if not backbone.projections:
        raise LearnerError(
            f"backbone '{backbone.name}' has no linear query and value projections that are known; "
            "name the modules to adapt in its target_modules"
        )
    lora = DecoupledLoRA(backbone.model, backbone.projections, sharing)
    if largest_rank > lora.largest_rank:
        raise SettingError(
            f"{learner}: rank = {largest_rank}, but the projections of '{backbone.name}' have rank {lora.largest_rank}; "
            f"give at most {lora.largest_rank}"
        )
    return lora


class LoRAAdapter(Adapter):
    """A backbone with low-rank updates of its weights."""

    def __init__(self, backbone: Backbone, lora: DecoupledLoRA, precision: str) -> None:
        super().__init__(backbone)
        self.lora, self.precision = lora, precision

    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        with self.lora.applied(), autocast(self.backbone, self.precision):
            features: Tensor = self.backbone(encoded, self.encoder)
            return features.float()

    def teacher(self) -> Encode:
        applied = self.lora.snapshot()

        @torch.no_grad()
        def encode(encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
            with applied(), autocast(self.backbone, self.precision):
                features: Tensor = self.backbone(encoded)
                return features.float()

        return encode

    @torch.no_grad()
    def encoder_weights(self) -> dict[str, Tensor]:
        """W0 + ΔW of every adapted projection, by the weight's name in `backbone.model`."""
        return {f"{name}.frozen.weight": self.lora.weight(p) for p, name in enumerate(self.backbone.projections)}

    def reset(self) -> None:
        self.lora.clear()

    def all_tensors(self) -> Iterable[Tensor]:
        return [*self.lora.parameters(), *self.lora.up, *self.lora.down]


@final
class Directions(LoRAAdapter):
    """One direction a task, frozen at its end and added by it (`last_direction`); the state is all magnitudes."""

    def last_direction(self) -> dict[str, Tensor]:
        """Tensors of the direction that was closed last."""
        factors = enumerate(self.lora.direction(self.lora.directions - 1))
        return {f"direction.{p}.{name}": t for p, pair in factors for name, t in zip(("up", "down"), pair, strict=True)}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        count = sum(key.startswith("direction.") and key.endswith(".up") for key in tensors)
        if count:
            self.lora.append([(tensors[f"direction.{p}.up"], tensors[f"direction.{p}.down"]) for p in range(count)])

    def state(self) -> dict[str, Tensor]:
        return {"magnitudes": self.lora.magnitudes}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.lora.set_magnitudes(state["magnitudes"])


@final
class OpenUpdate(LoRAAdapter):
    """One update that stays open, so that later tasks train it further."""

    def open(self, rank: int, generator: torch.Generator) -> None:
        """Add the update, unless it is there."""
        if not len(self.lora.open_up):
            self.lora.open(rank, generator)

    def state(self) -> dict[str, Tensor]:
        return {f"lora.{key}": t for key, t in self.lora.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        own = {key.removeprefix("lora."): t for key, t in state.items() if key.startswith("lora.")}
        if len(own) > 1:
            self.open(own["open_down.0"].shape[0], torch.Generator())  # values of no importance: they are replaced
        self.lora.load_state_dict(own)
