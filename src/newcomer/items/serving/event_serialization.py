"""Serialization of events' encoded values as JSON, for later warm-ups."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from newcomer.data.vocabulary import BOUND
from newcomer.items.encoding.bounds import out_of_bounds, within_bounds
from newcomer.items.encoding.encoder import Clicks, Encoder
from newcomer.nn.ctr.field_embeddings import CategoricalSize
from newcomer.settings import Json
from newcomer.shapes import Tensor
from newcomer.store.states import Event


def to_values(clicks: Clicks) -> list[list[Json]]:
    """Encoded fields of each event of `clicks.by_row()`; missing numbers are None."""
    columns = [[_to_json(_trimmed(value)) for value in values.tolist()] for values in clicks.of_rows]
    return [[column[row] for column in columns] for row in range(len(clicks))]


def to_clicks(events: Sequence[tuple[int, Event]], encoder: Encoder, device: torch.device) -> Clicks:
    """Stored events as encoded rows; `events`: item index and event. Numbers are clipped to the bounds."""
    kinds = [torch.int64 if isinstance(size, CategoricalSize) else torch.float32 for size in encoder.row_sizes()]
    values = [event.values or [None] * len(kinds) for _, event in events]
    rows = [_column([row[n] for row in values], kind).to(device) for n, kind in enumerate(kinds)]
    weights = [event.weight for _, event in events]
    is_weighted = any(weight != 1 for weight in weights)
    return Clicks(
        item=torch.tensor([item for item, _ in events], device=device),
        label=torch.tensor([event.label for _, event in events], dtype=torch.float32, device=device),
        user=torch.arange(len(events), device=device),
        of_users=[],
        of_rows=within_bounds(rows),
        weight=torch.tensor(weights, dtype=torch.float32, device=device) if is_weighted else None,
    )


def has_outliers(events: Sequence[Event]) -> bool:
    """Whether an encoded number of these events is out of bounds."""
    return any(_is_far_out(value) for event in events for value in event.values or ())


def _column(values: Sequence[Json], kind: torch.dtype) -> Tensor:
    """One field of several events; several values are padded with zeros to the longest."""
    if any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else [value] for value in values]
        longest = max(map(len, lists))
        values = [[*value, *[0] * (longest - len(value))] for value in lists]
        return torch.tensor(_from_json(values), dtype=kind)
    return torch.tensor([math.nan if value is None else value for value in values], dtype=kind)


def _is_far_out(value: Json) -> bool:
    """Floats are numbers; integers are category indices."""
    if isinstance(value, list):
        numbers = [number for number in value if isinstance(number, float)]
        return bool(numbers) and bool(out_of_bounds([torch.tensor([numbers], dtype=torch.float64)]))
    return isinstance(value, float) and abs(value) > BOUND


def _trimmed(value: Any) -> Any:
    """`serialization.trimmed` of a number, or of a list."""
    if not isinstance(value, list) or not value or isinstance(value[0], float):
        return value
    return value[: max(1, len(value) - value.count(0))]


def _to_json(value: Any) -> Json:
    if isinstance(value, list):
        return [_to_json(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_json(value: Json) -> Any:
    if isinstance(value, list):
        return [_from_json(part) for part in value]
    return math.nan if value is None else value
