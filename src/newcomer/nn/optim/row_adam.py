"""Adam whose cost does not grow with the rows of an embedding table.

Dense Adam (Kingma, Ba, ICLR 2015) touches every row at every step. A row without a gradient still moves: its moments decay, and the
remaining momentum is applied. `RowAdam` updates the rows that have gradients, and makes up for the steps in between when a row has
its next gradient (or at `catch_up`). After k steps without one, with r = β₁/√β₂

    m ← β₁ᵏ m,   v ← β₂ᵏ v,   p ← p − η m̂/(√v̂ + ε) · (r + r² + … + rᵏ)

which is what dense Adam does where the learning rate η (that of the row's last gradient) and the bias corrections are constant over
the ten steps in which momentum is spent, and ε is small. (Lazy Adam, such as `torch.optim.SparseAdam`, leaves that momentum out.)
Weight decay, an L2 term in the gradient, is applied to a row when it has
a gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class RowAdam(torch.optim.Adam):
    """Adam; for parameters with sparse gradients (`torch.sparse_coo`, rows) row by row, as above."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. A `closure` is not supported."""
        by_rows = [
            (p, group)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and p.grad.is_sparse
        ]
        gradients = [p.grad for p, _ in by_rows]
        for p, _ in by_rows:
            p.grad = None
        super().step(closure)
        for (p, group), gradient in zip(by_rows, gradients, strict=True):
            self._step_rows(p, gradient.coalesce(), group)
            p.grad = gradient

    @torch.no_grad()
    def catch_up(self) -> None:
        """Bring all rows up to the current step: before a table is read as a whole."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "last" in state:
                    done = int(state["step"])
                    for rows in torch.split(torch.arange(len(p), device=p.device), CATCH_UP):
                        _make_up(p, rows, state, done, group)
                        state["last"][rows] = done

    def _step_rows(self, p: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["last"], state["rate"] = torch.zeros(2, len(p), device=p.device)
        done, rows = int(state["step"]), gradient.indices()[0]
        _make_up(p, rows, state, done, group)
        (beta1, beta2), now = group["betas"], done + 1
        old = p[rows]
        step = gradient.values() + group["weight_decay"] * old
        first = state["exp_avg"][rows].lerp_(step, 1 - beta1)
        second = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(step, step, value=1 - beta2)
        size = (second / (1 - beta2**now)).sqrt_().add_(group["eps"])
        p[rows] = old.addcdiv_(first, size, value=-group["lr"] / (1 - beta1**now))
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = first, second
        state["last"][rows], state["rate"][rows], state["step"] = float(now), float(group["lr"]), state["step"] + 1


CATCH_UP = 2**15
"""Rows that are brought up to date at once."""


def _make_up(p: nn.Parameter, rows: Tensor, state: dict[str, Tensor], done: int, group: dict[str, Any]) -> None:
    """Apply to these rows the steps in which they had no gradient, up to step `done`."""
    idle = done - state["last"][rows]
    if not idle.any():
        return
    beta1, beta2 = group["betas"]
    ratio, idle = beta1 / beta2**0.5, idle[:, None]
    first, second = state["exp_avg"][rows], state["exp_avg_sq"][rows]
    begin = done - idle + 1  # the first of these steps, whose bias corrections stand for all
    size = (second / (1 - beta2**begin)).sqrt_().add_(group["eps"])
    geometric = ratio * (1 - ratio**idle) / (1 - ratio)
    p[rows] -= state["rate"][rows][:, None] * geometric * first / ((1 - beta1**begin) * size)
    state["exp_avg"][rows], state["exp_avg_sq"][rows] = first * beta1**idle, second * beta2**idle
