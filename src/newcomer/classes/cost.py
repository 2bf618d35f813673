"""What a learner costs: the operations of a prediction, and how many numbers it holds."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from newcomer.shapes import Tensor


class _PlainAttention(TorchFunctionMode):
    """Attention in its plain form, in this thread alone: torch's own switch is one for the whole process."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch._scaled_dot_product_attention_math(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def flops(compute: Callable[[], object]) -> int:
    """The floating-point operations of all matrix products and convolutions in `compute`; a multiplication and an addition are two.

    Attention is meanwhile computed in its plain form, whose products are counted on every device alike.

    >>> from torch import ones
    >>> flops(lambda: ones(3, 4) @ ones(4, 5))
    120
    """
    with _PlainAttention(), FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())


def numbers(tensors: Iterable[Tensor]) -> int:
    """How many numbers these tensors hold together.

    >>> from torch import zeros
    >>> numbers([zeros(2, 3), zeros(4)])
    10
    """
    return sum(tensor.numel() for tensor in tensors)
