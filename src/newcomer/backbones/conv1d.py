"""GPT-2's layers `Conv1D`, which hold their weights transposed, as linear layers."""

from torch import nn
from transformers.pytorch_utils import Conv1D


def conv1d_to_linear(model: nn.Module) -> frozenset[str]:
    """Replace every `Conv1D` of `model`, with W of (in, out), by the linear layer of Wᵀ. Returns their names."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, Conv1D)]
    for name in names:
        model.set_submodule(name, _linear(model.get_submodule(name)))
    return frozenset(names)


def _linear(layer: nn.Module) -> nn.Linear:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    linear = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
    linear.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=weight.requires_grad)
    linear.bias = bias
    return linear.train(layer.training)
