"""SD-LoRA as a literal loop over tasks: every adapted layer adds Σ_k α_k B_k A_k x / ‖B_k A_k‖_F."""

import torch
from models import query_value
from torch import Tensor, nn

from newcomer.nn.lora.decoupled_lora import DecoupledLoRA


class Looped(nn.Module):
    """A frozen layer and the factors of all tasks; the norm of a closed direction is computed in every pass, as in the equation."""

    def __init__(self, frozen: nn.Linear, bank: DecoupledLoRA, p: int) -> None:
        super().__init__()
        self.frozen, self.lora, self.p = frozen, bank, p
        self.closed = [tuple(f.clone() for f in bank.direction(k)[p]) for k in range(bank.directions)]
        self.norms = [torch.linalg.matrix_norm(up @ down) for up, down in self.closed]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.frozen(x)
        pairs = [
            *self.closed,
            *zip(self.lora.open_up[self.p : self.p + 1], self.lora.open_down[self.p : self.p + 1], strict=True),
        ]
        for k, (up, down) in enumerate(pairs):
            alpha = self.lora.magnitudes[k, 0]
            if k < len(
                self.closed
            ):  # the bank's directions have unit norm over all layers together: this layer's share of it
                norm = torch.linalg.matrix_norm(up @ down)
                alpha = alpha * self.norms[k] / norm
            out = out + alpha * ((x @ down.T) @ up.T)
        return out


def looped(model: nn.Module, bank: DecoupledLoRA) -> nn.Module:
    """The model with every layer that the bank adapts replaced by a `Looped` one."""
    for p, name in enumerate(query_value(model)):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        model.set_submodule(name, Looped(layer, bank, p))
    return model
