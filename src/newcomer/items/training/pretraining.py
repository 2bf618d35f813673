"""Pre-training of the shared weights on the old items' events; the first step of every item learner."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from newcomer.items.configuration import Pretraining
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork
from newcomer.items.training.model_selection import ModelSelection
from newcomer.items.training.training_data import TrainingData
from newcomer.nn.optim.row_adam import RowAdam
from newcomer.seeds import spawn
from newcomer.shapes import Bool, Float, Int, Tensor
from newcomer.training.averaging import Average
from newcomer.training.checkpoint import Checkpoint, Things
from newcomer.training.fit import fit, one_cycle
from newcomer.training.learner import Step
from newcomer.training.processes import Processes

OwnBatch = tuple[Int[Tensor, " row"], Int[Tensor, " row"], int]
"""Of a batch: this process's rows, their draws, and the size of all; see `training_data.Share`."""

LARGE_TABLE = 50_000
"""Rows from which on a table is trained row by row (`RowAdam`): its dense steps would cost more than all else."""

SHARDED_FROM = 2_000_000
"""Rows from which on 'auto' spreads a table over the processes: with its moments 0.4 GB at width 16."""

BITS = 20
"""Dropout flags packed per pass with an item's row number into an int64."""


def pretrain(
    network: ItemNetwork,
    residuals: nn.Embedding,
    item_features: Values,
    data: TrainingData,
    plan: Pretraining,
    epochs: int,
    seed: int,
    stage: str,
    checkpoint: Checkpoint,
    selection: ModelSelection,
    processes: Processes,
) -> Iterator[Step]:
    """Train the network and the old items' `residuals` in so many epochs, resuming after the last chunk in the checkpoint.

    Several processes take the steps of one, each with its rows of every batch, so that they may be others when training resumes.

    A batch's loss is the mean of its rows' losses, each times the row's weight over the mean weight of the log. So the mean over a
    pass is that of a log with rows of weight w repeated w times, and weights that are all multiplied by one number change no step.
    In MAP estimates this number does change something: weights are counts there, and say how much is known.
    """
    trained = nn.ParameterList([*network.parameters(), *residuals.parameters()])
    optimizer = RowAdam(parameter_groups(network, trained), plan.lr, weight_decay=plan.weight_decay, fused=True)
    mean = Average(trained, plan.weight_averaging)
    checkpointed: Things = {
        "network": network,
        "residuals": residuals,
        "optimizer": optimizer,
        "best": selection,
        "mean": mean,
    }
    done = checkpoint.resume("pretrain", checkpointed)
    parts, rows_in_all = epochs * data.chunks_per_epoch, epochs * data.rows
    rate = one_cycle(rows_in_all)
    for number in range(done, parts):
        _set_sparse(network, residuals, None if plan.weight_averaging else LARGE_TABLE)
        share = data.share(number, seed, stage, processes, plan.batch_size)
        rows = number * rows_in_all // parts
        dropped = _sample_dropout(share.total, plan, spawn(seed, stage, "pretrain", "dropout", number)).to(
            share.rows.device
        )

        def losses(batch: OwnBatch, clicks: Clicks = share.clicks, dropped: Tensor = dropped) -> Iterator[Tensor]:
            own, draw, size = batch
            if len(own):
                weights = clicks.weights(own) / data.mean_weight
                loss = _loss(network, residuals, item_features, clicks, own, plan, dropped[draw], weights)
                yield loss * (len(own) / size)
            elif network.is_sharded:  # the others need this process's rows
                blank, nothing = clicks.blank(), dropped.new_zeros(1, dropped.shape[1])
                weights = blank.weights(blank.item)
                yield _loss(network, residuals, item_features, blank, blank.item, plan, nothing, weights) * 0

        for batch in share.batches(plan.batch_size):
            rows += batch[2]
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * rate(rows) / group["length"]
            for metrics in fit([batch], losses, optimizer, processes):
                yield Step("pretrain", min(rows, rows_in_all), rows_in_all, metrics)
            mean.update(trained, rows / rows_in_all)
        optimizer.catch_up()
        _set_sparse(network, residuals, None)
        if (number + 1) % data.chunks_per_epoch == 0:
            selection.update(network)
        checkpoint.keep("pretrain", number + 1, checkpointed, now=number + 1 == parts)
    optimizer.zero_grad()
    if mean.copy_to(trained):
        selection.update(network)


def parameter_groups(network: ItemNetwork, trained: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Groups of parameters, the maps of vectors apart: their rate is divided by the vectors' length.

    Adam moves each weight by about the rate, and so the image of a vector of n numbers n times as far as an embedding.
    """
    length = {id(table): count for of in (network.item_fields, network.row_fields) for table, count in of.vector_maps()}
    groups = defaultdict[int, list[Tensor]](list)
    for parameter in trained:
        groups[length.get(id(parameter), 1)].append(parameter)
    return [{"params": parameters, "length": count} for count, parameters in sorted(groups.items())]


def sharded_from(plan: Pretraining, processes: Processes) -> int | None:
    """Rows from which on a table is spread over the processes; None: no table is."""
    if processes.count == 1 or plan.weight_averaging or not plan.shard_tables:
        return None
    return SHARDED_FROM if plan.shard_tables == "auto" else LARGE_TABLE


def _set_sparse(network: ItemNetwork, residuals: nn.Embedding, sparse_from: int | None) -> None:
    """Give tables with at least so many rows sparse gradients; None: no table."""
    network.item_fields.sparse_from = network.row_fields.sparse_from = sparse_from
    residuals.sparse = sparse_from is not None and residuals.num_embeddings >= sparse_from


def center_residuals(network: ItemNetwork, residuals: nn.Embedding) -> None:
    """Move the residuals' mean, each item counting once, into the initial id and bias.

    Rows with `id_dropout` weight items by their events, and popular items are liked better than new ones: on MovieLens-1M, clicks
    on new films would be overestimated by two fifths.
    """
    with torch.no_grad():
        mean = residuals.weight.mean(dim=0)
        network.start.add_(mean)
        residuals.weight -= mean


def _loss(
    network: ItemNetwork,
    residuals: nn.Embedding,
    item_features: Values,
    clicks: Clicks,
    rows: Tensor,
    plan: Pretraining,
    dropped: Bool[Tensor, "row part"],
    weights: Float[Tensor, " row"],
) -> Float[Tensor, ""]:
    used = [part for part, share in enumerate((plan.id_dropout, *plan.field_dropout)) if share]
    items, dropped, row_to_pair = unique_pairs(clicks.item[rows], dropped[:, used])
    masks = dict(zip(used, dropped.T, strict=True))
    residual = residuals(items)
    if 0 in masks:
        residual = residual * ~masks[0][:, None]
    batch_features = [values.index_select(0, items) for values in item_features]
    batch_features = [
        _masked(values, masks[part]) if part in masks else values for part, values in enumerate(batch_features, 1)
    ]
    embedded = network.embed_items(batch_features) if batch_features else batch_features
    initial = (
        network.initial_state(embedded, len(items))
        if plan.item_graphs
        else network.initial_id_and_bias(embedded, len(items))
    )
    state = {**initial, "id": initial["id"] + residual[:, :-1], "bias": initial["bias"] + residual[:, -1:]}
    logits = network.forward_rows(state, embedded, row_to_pair, clicks.values(rows))
    loss = functional.binary_cross_entropy_with_logits(logits, clicks.label[rows], weights)
    if plan.residual_l2:
        loss = loss + plan.residual_l2 * (weights * residual.square().sum(dim=1)[row_to_pair]).mean()
    return loss


def unique_pairs(
    item: Int[Tensor, " row"], dropped: Bool[Tensor, "row part"]
) -> tuple[Int[Tensor, " item"], Bool[Tensor, "item part"], Int[Tensor, " row"]]:
    """Distinct (item, dropout mask) pairs, sorted, and each row's index into them.

    Exact for any number of fields: the mask is packed bit by bit into a code, which is replaced by its rank before it overflows.

    >>> item, hidden = torch.tensor([7, 7, 3, 7]), torch.tensor([[True], [False], [False], [True]])
    >>> [found.tolist() for found in unique_pairs(item, hidden)]
    [[3, 7, 7], [[False], [False], [True]], [2, 1, 0, 2]]
    """
    row_to_pair = item
    for parts in torch.split(dropped, BITS, dim=1):
        for part in parts.T:
            row_to_pair = 2 * row_to_pair + part
        _, row_to_pair = torch.unique(row_to_pair, return_inverse=True)
    row = torch.empty_like(row_to_pair[: int(row_to_pair.max()) + 1]).scatter_(
        0, row_to_pair, torch.arange(len(row_to_pair), device=row_to_pair.device)
    )
    return item[row], dropped[row], row_to_pair


def _sample_dropout(rows: int, plan: Pretraining, chance: torch.Generator) -> Bool[Tensor, "row part"]:
    """Dropout masks of the rows: first the residual, then each item field."""
    shares = torch.tensor([plan.id_dropout, *plan.field_dropout])
    return torch.rand(rows, len(shares), generator=chance) < shares


def _masked(values: Tensor, dropped: Bool[Tensor, " item"]) -> Tensor:
    """A field's values, replaced by 'missing' where dropped."""
    if not dropped.any():
        return values
    nothing = torch.full_like(values, torch.nan if values.is_floating_point() else 0)
    return torch.where(dropped.view(-1, *[1] * (values.ndim - 1)), nothing, values)
