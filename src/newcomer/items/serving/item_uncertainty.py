"""How far an item's logit is known, apart from any request."""

from dataclasses import dataclass, replace

import polars as pl

from newcomer.data.io.log_reader import log_from_frame
from newcomer.items.serving.scoring import score_requests
from newcomer.items.serving.service import ItemService

COLD = "\0cold"
"""Id of the same item without events; no item has it."""


@dataclass(frozen=True)
class ItemUncertainty:
    """Posterior stds of an item's logit in a request of which nothing is known: given its events, and before its first event."""

    std: float
    std_at_first: float


def item_uncertainty(service: ItemService, item: str) -> ItemUncertainty | None:
    """The uncertainty of this item; None where `ItemService.score` has no std. Raises DataError for an unknown item."""
    row, _ = service.look_up(item)
    learner, known = service.learner, service.refreshed([row.item], for_scores=True)
    number = known.numbers[row.item]
    features = [values[number : number + 1] for values in known.item_features]
    state = learner.cold_state(features, 1)
    known = known.with_new([COLD], features, state, learner.network.precompute(state))
    fields = tuple(replace(field, missing="mark") for field in learner.schema.fields)
    schema = replace(learner.schema, fields=fields, user_missing="mark")
    names = pl.DataFrame({schema.item: [row.item, COLD]}, schema={schema.item: pl.String})
    log = log_from_frame(names.with_columns(pl.lit(None).alias(schema.user)), schema, items=False, labels=False)
    log = replace(log, schema=learner.schema)
    found, _ = score_requests(service, known, log, {}, "items", uncertainty=True)
    std, at_first = found["logit_std"].to_list()
    return None if std is None or at_first is None else ItemUncertainty(std, at_first)
