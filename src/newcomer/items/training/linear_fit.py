"""Fit of a logistic regression with Gaussian priors whose stds are estimated from the data: seconds, and no learning rate."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.linear_network import LinearNetwork
from newcomer.nn.ctr.field_embeddings import FieldEmbeddings
from newcomer.shapes import Float, Tensor
from newcomer.training.fit import finite
from newcomer.training.learner import Step

ROUNDS = 6
"""Estimates of the stds."""

LBFGS_STEPS = 20
"""Steps of L-BFGS in a round, which starts where the last one ended."""

STD, LEAST_STD = 1.0, 1e-3
"""Std of every field's weights at first, and the least one."""

NO_STD = 1e-20
"""Std of a bias that does not move: what it adds is below the precision of every other bias than 0."""


def fit_linear(
    network: LinearNetwork, residuals: nn.Embedding, item_features: Values, clicks: Clicks, item_bias: bool
) -> Iterator[Step]:
    """Find the MAP estimate of start, weights and items' biases; of each table w ~ N(0, σ²), σ by expectation maximization.

    σ² ← mean of w² + 1 / (H + 1/σ²), H being the diagonal of the negative log likelihood's second derivative: the second summand is
    Laplace's approximation of the posterior variance. `residuals` are the items' biases, in the last column; without `item_bias`
    they stay 0. An event of weight w enters as w equal ones. The std of the biases becomes the prior of warm-ups.
    """
    nn.init.zeros_(residuals.weight)
    biases = nn.Parameter(torch.zeros_like(residuals.weight[:, 0]))
    tables = [network.item_fields.tables[field] for field in network.used_item_fields]
    tables += [network.row_fields.tables[field] for field in network.used_row_fields]
    start = nn.Parameter(network.start[-1].detach().clone())
    fitted = [*tables, *([biases] if item_bias else [])]
    stds = [STD] * len(fitted)
    every = torch.arange(len(clicks), device=clicks.item.device)
    rows, weights, items = clicks.values(every), clicks.weights(every), len(biases)
    total_weight = float(weights.sum(dtype=torch.float64))

    def logits() -> Float[Tensor, " row"]:
        of_items = start + biases + network.item_logits(item_features, items)
        return of_items[clicks.item] + network.row_logits(rows, len(clicks))

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = functional.binary_cross_entropy_with_logits(logits(), clicks.label, weights, reduction="sum")
        penalty = sum(
            (w.square().sum() / (2 * s**2) for w, s in zip(fitted, stds, strict=True)), start=fit.new_zeros(())
        )
        total = (fit + penalty) / total_weight
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    for parameter in fitted:
        parameter.requires_grad_(True)
    try:
        for number in range(1, ROUNDS + 1):
            optimizer = torch.optim.LBFGS([start, *fitted], max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")
            value = finite(float(optimizer.step(loss)))  # type: ignore[no-untyped-call]
            with torch.no_grad():
                p = torch.sigmoid(logits())
                curvatures = _curvatures(network, item_features, rows, clicks, weights * p * (1 - p), item_bias)
                stds = [_std(w, h, s) for w, h, s in zip(fitted, curvatures, stds, strict=True)]
            yield Step("fit", number, ROUNDS, {"loss": value})
    finally:
        for parameter in fitted:
            parameter.requires_grad_(False)
    with torch.no_grad():
        network.start[-1] = start
        residuals.weight[:, -1] = biases
        network.scales["bias"].fill_(stds[-1] if item_bias else NO_STD).log_()


def _std(weights: Tensor, curvature: Tensor, std: float) -> float:
    """Of the values that occur: others stay at 0."""
    seen = curvature > 0
    if not seen.any():
        return std
    variance = weights.flatten()[seen].square() + 1 / (curvature[seen] + std**-2)
    return max(float(variance.mean().sqrt()), LEAST_STD)


def _curvatures(
    network: LinearNetwork, item_features: Values, rows: Values, clicks: Clicks, weight: Tensor, item_bias: bool
) -> Iterator[Tensor]:
    """Σ weight · x² of each parameter, x being its factor in a row's logit; in the order of `fitted`."""
    of_item = torch.zeros(int(clicks.item.max()) + 1, device=weight.device).index_add(0, clicks.item, weight)
    for fields, used, values, of in (
        (network.item_fields, network.used_item_fields, item_features, of_item),
        (network.row_fields, network.used_row_fields, rows, weight),
    ):
        for field in used:
            yield _squares(fields, field, values[field], of)
    if item_bias:
        yield of_item


def _squares(fields: FieldEmbeddings, field: int, value: Tensor, weight: Tensor) -> Tensor:
    found = torch.zeros(len(fields.tables[field]), device=weight.device)
    if value.is_floating_point():
        numbers = value[:, None] if value.ndim == 1 else value
        missing = numbers.isnan().any(dim=1)
        found[:-1] = (torch.where(missing[:, None], 0, numbers).square() * weight[:, None]).sum(dim=0)
        found[-1] = weight[missing].sum()
        return found
    names = value[:, None] if value.ndim == 1 else value
    real = names > 0
    share = weight / real.sum(dim=1).clamp(min=1).square()
    found.index_add_(0, names.flatten(), (share[:, None] * real).flatten())
    found[0] = 0
    return found
