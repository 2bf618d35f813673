"""How prompts enter a transformer: as rows before its tokens, or as keys and values that a layer's attention finds beside its own.

Rows before the tokens (`prepended`) go through all layers as tokens do. A prefix (`prefixed`; Li and Liang, ACL 2021) stays in one
layer: with its keys K' and values V', put in after the projections,

    softmax( Q [K'; K]ᵀ / √d ) [V'; V]

A prefix is neutral when no query meets its keys, not when it is zero: a key of zeros has the weight of a score of 0.

The layers of many libraries are served alike, by hooks that last as long as the context: the attention is handed as many blank
rows more as the prefix has, their keys and values are replaced where the projections give them, and what it says at these rows is
dropped. That costs the blank rows' queries. Masks and biases over tokens, arguments (batch, head, query, key), grow along: every
token sees every prompt, without bias, and a prompt sees what the first token does.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.shapes import Float, Tensor

HIDES = -1e4
"""From here down a number that is added to scores hides a token, as masks do; above it is a bias."""


@dataclass(frozen=True)
class Attention:
    """A layer's attention: `whole` is given tokens (batch, token, width); `key` and `value` name its linear modules.

    They are names, because what stands under them may change: another learner on the same model adapts them.
    """

    whole: nn.Module
    key: str
    value: str

    @property
    def width(self) -> int:
        """Of a key, all heads together."""
        return next(self.whole.get_submodule(self.key).parameters()).shape[0]


@dataclass(frozen=True)
class Prefix:
    """Keys and values that each example's attention finds beside its own, of the width of all heads together."""

    keys: Float[Tensor, "batch row width"]
    values: Float[Tensor, "batch row width"]

    def __add__(self, other: "Prefix") -> "Prefix":
        """The rows of both."""
        return Prefix(torch.cat([self.keys, other.keys], dim=1), torch.cat([self.values, other.values], dim=1))


@contextmanager
def prefixed(prefixes: Iterable[tuple[Attention, Prefix]]) -> Iterator[None]:
    """Within, these layers' attentions have these prefixes; afterwards the model is as it was."""
    with ExitStack() as hooks:
        for attention, prefix in prefixes:
            rows = prefix.keys.shape[1]
            for handle in (
                attention.whole.register_forward_pre_hook(_given(_blank(rows)), with_kwargs=True),
                attention.whole.get_submodule(attention.key).register_forward_hook(_replaced(prefix.keys)),
                attention.whole.get_submodule(attention.value).register_forward_hook(_replaced(prefix.values)),
                attention.whole.register_forward_hook(_dropped(rows)),
            ):
                hooks.callback(handle.remove)
        yield


@contextmanager
def prepended(
    first: nn.Module, attentions: Iterable[Attention], rows: Float[Tensor, "batch row width"]
) -> Iterator[None]:
    """Within, `rows` come before the tokens that the `first` layer is given; afterwards the model is as it was.

    The outputs of the last layer begin with theirs. `attentions` are those of all layers.
    """
    with ExitStack() as hooks:
        hooks.callback(first.register_forward_pre_hook(_given(lambda tokens: rows.to(tokens)), with_kwargs=True).remove)
        for attention in attentions:  # they know of the rows, their masks do not
            hooks.callback(attention.whole.register_forward_pre_hook(_given(_blank(0)), with_kwargs=True).remove)
        yield


def _given(rows: Callable[[Tensor], Tensor]) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """A hook that puts `rows` before the tokens a module is given, and widens masks and biases to the tokens there are then."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        place = next(key for key, value in given.items() if isinstance(value, Tensor) and value.ndim == 3)
        given[place] = torch.cat([rows(given[place]), given[place]], dim=1)
        changed = {key: _widened(value, given[place].shape[1]) for key, value in given.items()}
        return tuple(changed[i] for i in range(len(args))), {key: changed[key] for key in kwargs}

    return hook


def _blank(rows: int) -> Callable[[Tensor], Tensor]:
    return lambda tokens: tokens.new_zeros(len(tokens), rows, tokens.shape[2])


def _widened(value: Any, tokens: int) -> Any:
    """A mask or bias over so many tokens, those that it lacks coming first; anything else as it is."""
    if not isinstance(value, Tensor) or value.ndim != 4 or not (value.dtype == torch.bool or value.is_floating_point()):
        return value
    missing = tokens - value.shape[3]
    if missing <= 0:
        return value
    if value.shape[2] > 1:  # otherwise one row stands for all queries
        row = value[:, :, :1]
        hidden = row if value.dtype == torch.bool else row.where(row <= HIDES, 0.0)
        value = torch.cat([hidden.expand(-1, -1, missing, -1), value], dim=2)
    return F.pad(value, (missing, 0), value=value.dtype == torch.bool)


def _replaced(rows: Float[Tensor, "batch row width"]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _, __, projected: torch.cat([rows.to(projected), projected[:, rows.shape[1] :]], dim=1)


def _dropped(rows: int) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that takes the first rows away from what an attention says; weights may stand beside it."""

    def hook(_: nn.Module, __: Any, said: Any) -> Any:
        return said[:, rows:] if isinstance(said, Tensor) else (said[0][:, rows:], *said[1:])

    return hook
