"""SD-LoRA written the plain way: every adapted layer adds, one after the other, α_k B_k A_k x / ‖B_k A_k‖ for every task."""

from models import query_value
from torch import Tensor, nn

from newcomer.nn.decoupled_lora import DecoupledLoRA


class Looped(nn.Module):
    """A frozen layer and the products of all tasks, each divided by the norm of its own direction over all projections."""

    def __init__(self, frozen: nn.Linear, bank: DecoupledLoRA, p: int) -> None:
        super().__init__()
        self.frozen, self.bank, self.p = frozen, bank, p
        self.closed = [tuple(f.clone() for f in bank.direction(k)[p]) for k in range(bank.directions)]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.frozen(x)
        pairs = [
            *self.closed,
            *zip(self.bank.open_up[self.p : self.p + 1], self.bank.open_down[self.p : self.p + 1], strict=True),
        ]
        for k, (up, down) in enumerate(pairs):
            out = out + self.bank.magnitudes[k, 0] * ((x @ down.T) @ up.T)
        return out


def looped(model: nn.Module, bank: DecoupledLoRA) -> nn.Module:
    """This model with every layer that the bank adapts written as a loop."""
    for p, name in enumerate(query_value(model)):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        model.set_submodule(name, Looped(layer, bank, p))
    return model
