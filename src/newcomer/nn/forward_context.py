"""Thread-local overrides for one forward pass: weights or prompts by module, so that several threads share one model."""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Generic, TypeVar

from torch import nn

Value = TypeVar("Value")


class ForwardContext(threading.local, Generic[Value]):
    """Values by module within `override`, for the current thread only.

    >>> module, weights = nn.Identity(), ForwardContext[int]()
    >>> with weights.override({module: 3}):
    ...     weights.of(module)
    3
    >>> weights.of(module) is None
    True
    """

    def __init__(self) -> None:
        self.values: Mapping[nn.Module, Value] = {}  # called once in every thread
        _CONTEXTS.add(self)

    def of(self, module: nn.Module) -> Value | None:
        """The value of this module in the current thread's pass, if any."""
        return self.values.get(module)

    @contextmanager
    def override(self, values: Mapping[nn.Module, Value]) -> Iterator[None]:
        """Within, these modules have these values; afterwards the previous ones."""
        before = self.values
        self.values = {**before, **values}
        try:
            yield
        finally:
            self.values = before


_CONTEXTS: weakref.WeakSet[ForwardContext[Any]] = weakref.WeakSet()


def captured() -> Callable[[], AbstractContextManager[None]]:
    """A function that brings back all overrides as they are now, in any thread."""
    noted = [(context, context.values) for context in list(_CONTEXTS)]

    @contextmanager
    def again() -> Iterator[None]:
        with ExitStack() as stack:
            for context, values in noted:
                stack.enter_context(context.override(values))
            yield

    return again


_REGISTERING = threading.Lock()


def hooked(module: nn.Module, *, before: Any = None, after: Any = None) -> None:
    """Register these hooks permanently, each once.

    `before` receives positional and keyword arguments. Permanent hooks look up a `ForwardContext`: hooks that are registered and
    removed around a pass would change the module for all threads.
    """
    if before and before not in module._forward_pre_hooks.values():
        with _REGISTERING:  # torch numbers its hooks without a lock
            if before not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(before, with_kwargs=True)
    if after and after not in module._forward_hooks.values():
        with _REGISTERING:
            if after not in module._forward_hooks.values():
                module.register_forward_hook(after)
