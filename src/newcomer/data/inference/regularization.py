"""Proposal of EmerG's regularization from what the fields of a log hold; see docs/defaults.md for what it brings."""

from collections.abc import Mapping

from newcomer.data.schema import Schema
from newcomer.settings import Json

TEXT_DROPOUT = 0.9
"""Of a text most of whose words occur once: they tell an item of pre-training apart rather than describe a new one. Words
that items share, such as genres, describe new items too."""

WHY = {
    "smoothing_bandwidth": "numbers but for a few values: similar embeddings for near ones; Silverman's bandwidth",
    "field_dropout": "words of a text tell items apart that are learned from; they describe new ones less",
}
"""Setting → reason."""


def propose_regularization(schema: Schema, bandwidths: Mapping[str, float]) -> dict[str, Json]:
    """Settings of EmerG for a log with these fields. `bandwidths`: of categorical ones whose values are numbers."""
    found: dict[str, Json] = {}
    if bandwidths:
        found["smoothing_bandwidth"] = {name: float(f"{bandwidth:.2g}") for name, bandwidth in bandwidths.items()}
    rare = [field.name for field in schema.of("item") if field.kind == "text" and field.min_count > 1]
    if rare:
        found["field_dropout"] = dict.fromkeys(rare, TEXT_DROPOUT)
    return found
