"""Serialization of events' encoded values as JSON, for later warm-ups."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from newcomer.data.vocabulary import BOUND
from newcomer.items.encoding.bounds import out_of_bounds, within_bounds
from newcomer.items.encoding.encoder import Clicks, Encoder, concat_values
from newcomer.items.serving.serialization import trimmed
from newcomer.nn.ctr.field_embeddings import CategoricalSize
from newcomer.settings import Json
from newcomer.shapes import Tensor
from newcomer.store.states import Event


def to_values(clicks: Clicks, row: int) -> list[Json]:
    """Encoded fields of one event; missing numbers are None."""
    return [_to_json(trimmed(values[row]).tolist()) for values in clicks.of_rows]


def to_clicks(events: Sequence[tuple[int, Event]], encoder: Encoder, device: torch.device) -> Clicks:
    """Stored events as encoded rows; `events`: item index and event. Numbers are clipped to the bounds."""
    kinds = [torch.int64 if isinstance(size, CategoricalSize) else torch.float32 for size in encoder.row_sizes()]
    rows = [
        _to_tensor([_from_json(event.values[n] if event.values else None) for _, event in events], kind).to(device)
        for n, kind in enumerate(kinds)
    ]
    return Clicks(
        item=torch.tensor([item for item, _ in events], device=device),
        label=torch.tensor([event.label for _, event in events], dtype=torch.float32, device=device),
        user=torch.arange(len(events), device=device),
        of_users=[],
        of_rows=within_bounds(rows),
    )


def has_outliers(events: Sequence[Event]) -> bool:
    """Whether an encoded number of these events is out of bounds."""
    return any(_is_far_out(value) for event in events for value in event.values or ())


def _is_far_out(value: Json) -> bool:
    """Floats are numbers; integers are category indices."""
    if isinstance(value, list):
        numbers = [number for number in value if isinstance(number, float)]
        return bool(numbers) and bool(out_of_bounds([torch.tensor([numbers], dtype=torch.float64)]))
    return isinstance(value, float) and abs(value) > BOUND


def _to_tensor(values: Sequence[Any], kind: torch.dtype) -> Tensor:
    """Encoded values of one field, padded if they are lists."""
    if not any(isinstance(value, list) for value in values):
        return torch.tensor(values, dtype=kind)
    return concat_values([[torch.tensor(value, dtype=kind)[None]] for value in values])[0]


def _to_json(value: Any) -> Json:
    if isinstance(value, list):
        return [_to_json(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_json(value: Json) -> Any:
    if isinstance(value, list):
        return [_from_json(part) for part in value]
    return math.nan if value is None else value
