"""How prompts enter a transformer: as rows before its tokens, or as keys and values that a layer's attention finds beside its own.

Rows before the tokens (`prepended`) go through all layers as tokens do. A prefix (`prefixed`; Li and Liang, ACL 2021) stays in one
layer: with its keys K' and values V', put in after the projections,

    softmax( Q [K'; K]ᵀ / √d ) [V'; V]

A prefix is neutral when no query meets its keys, not when it is zero: a key of zeros has the weight of a score of 0.

The layers of many libraries are served alike, by hooks that do nothing but where a context lends the pass of this thread a prefix:
the attention is handed as many blank rows more as the prefix has, their keys and values are replaced where the projections give
them, and what it says at these rows is dropped. That costs the blank rows' queries. Masks and biases over tokens, arguments (batch,
head, query, key), grow along: every token sees every prompt, without bias, and a prompt sees what the first token does.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.nn.forward_context import PerPass, hooked
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


@dataclass(frozen=True)
class _Rows:
    """What comes before the tokens that a module is given, and how much of it is dropped from what it gives back."""

    rows: Tensor | int
    """The rows themselves, or how many blank ones."""
    dropped: int = 0


_BEFORE: PerPass[_Rows] = PerPass()
_PROJECTED: PerPass[Tensor] = PerPass()
"""Rows that take the place of the first ones that a projection gives."""


@contextmanager
def prefixed(prefixes: Iterable[tuple[Attention, Prefix]]) -> Iterator[None]:
    """Within, these layers' attentions have these prefixes, one each; afterwards the model computes what it did.

    That is so for this thread alone.
    """
    before, projected = dict[nn.Module, _Rows](), dict[nn.Module, Tensor]()
    for attention, prefix in prefixes:
        whole, count = attention.whole, prefix.keys.shape[1]
        hooked(whole, before=_given, after=_dropped)
        before[whole] = _Rows(count, dropped=count)
        for name, rows in ((attention.key, prefix.keys), (attention.value, prefix.values)):
            projection = whole.get_submodule(name)
            hooked(projection, after=_replaced)
            projected[projection] = rows
    with _BEFORE.lending(before), _PROJECTED.lending(projected):
        yield


@contextmanager
def prepended(
    first: nn.Module, attentions: Iterable[Attention], rows: Float[Tensor, "batch row width"]
) -> Iterator[None]:
    """Within, `rows` come before the tokens that the `first` layer is given; afterwards the model computes what it did.

    That is so for this thread alone. The outputs of the last layer begin with the rows'. `attentions` are those of all layers.
    """
    before = {attention.whole: _Rows(0) for attention in attentions}  # they know of the rows, their masks do not
    before[first] = _Rows(rows)
    for module in before:
        hooked(module, before=_given, after=_dropped)
    with _BEFORE.lending(before):
        yield


def _given(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Puts rows before the tokens a module is given, and widens masks and biases to the tokens there are then."""
    asked = _BEFORE.of(module)
    if asked is None:
        return None
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    place = next(key for key, value in given.items() if isinstance(value, Tensor) and value.ndim == 3)
    tokens = given[place]
    rows = asked.rows
    first = tokens.new_zeros(len(tokens), rows, tokens.shape[2]) if isinstance(rows, int) else rows.to(tokens)
    given[place] = torch.cat([first, tokens], dim=1)
    changed = {key: _widened(value, given[place].shape[1]) for key, value in given.items()}
    return tuple(changed[i] for i in range(len(args))), {key: changed[key] for key in kwargs}


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


def _replaced(module: nn.Module, _: Any, projected: Tensor) -> Tensor | None:
    """Puts a prefix's keys or values in the place of a projection's first rows."""
    rows = _PROJECTED.of(module)
    return None if rows is None else torch.cat([rows.to(projected), projected[:, rows.shape[1] :]], dim=1)


def _dropped(module: nn.Module, _: Any, said: Any) -> Any:
    """Takes the first rows away from what an attention says; weights may stand beside it."""
    asked = _BEFORE.of(module)
    if asked is None or not asked.dropped:
        return None
    rest = slice(asked.dropped, None)
    return said[:, rest] if isinstance(said, Tensor) else (said[0][:, rest], *said[1:])
