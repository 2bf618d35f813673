"""Prompts and prefixes in a transformer: rows prepended to the tokens, or keys and values prepended in a layer's attention.

Prepended rows (`prepended`) go through all layers as tokens do. A prefix (`prefixed`; Li and Liang, ACL 2021) stays in one
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

from newcomer.nn.forward_context import ForwardContext, hooked
from newcomer.shapes import Float, Tensor

HIDES = -1e4
"""Additive attention values below this are masks, above it biases."""


@dataclass(frozen=True)
class Attention:
    """A layer's attention: module `whole` on tokens (batch, token, width); `key` and `value` name its linear modules.

    Names, because another learner on the same model may replace these modules.
    """

    whole: nn.Module
    key: str
    value: str

    @property
    def width(self) -> int:
        """Width of a key, all heads together."""
        return next(self.whole.get_submodule(self.key).parameters()).shape[0]


@dataclass(frozen=True)
class Prefix:
    """Keys and values prepended to those of each example; width of all heads together."""

    keys: Float[Tensor, "batch row width"]
    values: Float[Tensor, "batch row width"]

    def __add__(self, other: "Prefix") -> "Prefix":
        """Concatenation."""
        return Prefix(torch.cat([self.keys, other.keys], dim=1), torch.cat([self.values, other.values], dim=1))


@dataclass(frozen=True)
class _Rows:
    """Rows prepended to a module's tokens, and number of rows dropped from its output."""

    rows: Tensor | int
    """The rows, or a number of blank ones."""
    dropped: int = 0


_BEFORE: ForwardContext[_Rows] = ForwardContext()
_PROJECTED: ForwardContext[Tensor] = ForwardContext()
"""Rows that replace the first rows of a projection's output."""


@contextmanager
def prefixed(prefixes: Iterable[tuple[Attention, Prefix]]) -> Iterator[None]:
    """Within, these attention layers have these prefixes, one each.

    For the current thread only.
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
    with _BEFORE.override(before), _PROJECTED.override(projected):
        yield


@contextmanager
def prepended(
    first: nn.Module, attentions: Iterable[Attention], rows: Float[Tensor, "batch row width"]
) -> Iterator[None]:
    """Within, `rows` are prepended to the tokens of the `first` layer.

    For the current thread only. The last layer's outputs begin with those of the rows. `attentions` are those of all layers.
    """
    before = {attention.whole: _Rows(0) for attention in attentions}  # their masks are widened
    before[first] = _Rows(rows)
    for module in before:
        hooked(module, before=_given, after=_dropped)
    with _BEFORE.override(before):
        yield


def _given(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Pre-forward hook: prepend rows to a module's tokens, and widen masks and biases."""
    override = _BEFORE.of(module)
    if override is None:
        return None
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    argument = next(key for key, value in given.items() if isinstance(value, Tensor) and value.ndim == 3)
    tokens = given[argument]
    rows = override.rows
    first = tokens.new_zeros(len(tokens), rows, tokens.shape[2]) if isinstance(rows, int) else rows.to(tokens)
    given[argument] = torch.cat([first, tokens], dim=1)
    changed = {key: _widened(value, given[argument].shape[1]) for key, value in given.items()}
    return tuple(changed[i] for i in range(len(args))), {key: changed[key] for key in kwargs}


def _widened(value: Any, tokens: int) -> Any:
    """A mask or bias widened at the front to this number of tokens; other values unchanged."""
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
    """Forward hook: replace a projection's first rows by a prefix's keys or values."""
    rows = _PROJECTED.of(module)
    return None if rows is None else torch.cat([rows.to(projected), projected[:, rows.shape[1] :]], dim=1)


def _dropped(module: nn.Module, _: Any, output: Any) -> Any:
    """Forward hook: drop the first rows of an attention's output, which may be a tuple."""
    override = _BEFORE.of(module)
    if override is None or not override.dropped:
        return None
    rest = slice(override.dropped, None)
    return output[:, rest] if isinstance(output, Tensor) else (output[0][:, rest], *output[1:])
