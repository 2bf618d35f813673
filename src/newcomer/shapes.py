"""Type annotations of tensor shapes: `Float[Tensor, "batch field width"]`.

Shapes are checked only in tests, by jaxtyping's import hook.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
