"""What modules are lent for one forward pass: kept by the thread that runs the pass, so that several threads share one model."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from torch import nn

Lent = TypeVar("Lent")


class PerPass(threading.local, Generic[Lent]):
    """Values by module, for as long as `lending` lasts and for the thread that lends; every other thread sees none of them.

    >>> module, weights = nn.Identity(), PerPass[int]()
    >>> with weights.lending({module: 3}):
    ...     weights.of(module)
    3
    >>> weights.of(module) is None
    True
    """

    def __init__(self) -> None:
        self.values: Mapping[nn.Module, Lent] = {}

    def of(self, module: nn.Module) -> Lent | None:
        """What this module is lent by the pass under way in this thread, if anything."""
        return self.values.get(module)

    @contextmanager
    def lending(self, values: Mapping[nn.Module, Lent]) -> Iterator[None]:
        """Within, these modules have these values; afterwards those they had."""
        before = self.values
        self.values = {**before, **values}
        try:
            yield
        finally:
            self.values = before


_REGISTERING = threading.Lock()


def hooked(module: nn.Module, *, before: Any = None, after: Any = None) -> None:
    """The module calls these hooks for good, each once however often they are asked for.

    `before` is given positional and named arguments. Hooks that last are those that ask a `PerPass` what to do: to register and
    remove them around every pass would change the module for all threads.
    """
    if before and before not in module._forward_pre_hooks.values():
        with _REGISTERING:  # torch numbers its hooks without a lock
            if before not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(before, with_kwargs=True)
    if after and after not in module._forward_hooks.values():
        with _REGISTERING:
            if after not in module._forward_hooks.values():
                module.register_forward_hook(after)
