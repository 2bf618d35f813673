"""Words for tensor axes: `Float[Tensor, "batch field width"]` says what a signature takes.

The library states shapes and never checks them at run time; its tests do, with jaxtyping's import hook.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
