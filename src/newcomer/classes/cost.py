"""Cost of a learner: floating-point operations of a prediction, and number of parameters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from newcomer.shapes import Tensor


class _PlainAttention(TorchFunctionMode):
    """Plain attention for the current thread only: torch's switch affects the whole process."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch._scaled_dot_product_attention_math(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def flops(compute: Callable[[], object]) -> int:
    """The floating-point operations of all matrix products and convolutions in `compute`; a multiplication and an addition are two.

    Attention is computed in its plain form, whose matrix products are counted equally on every device.

    >>> from torch import ones
    >>> flops(lambda: ones(3, 4) @ ones(4, 5))
    120
    """
    with _PlainAttention(), FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())


def numbers(tensors: Iterable[Tensor]) -> int:
    """Total number of elements of these tensors.

    >>> from torch import zeros
    >>> numbers([zeros(2, 3), zeros(4)])
    10
    """
    return sum(tensor.numel() for tensor in tensors)
