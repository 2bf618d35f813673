"""Embedding tables that are computed during training and stored as plain tables afterwards."""

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from newcomer.shapes import Float, Int, Tensor


class ComputedEmbedding(nn.Module, ABC):
    """Replaces a table during training (`FieldEmbeddings.replace_table`)."""

    @abstractmethod
    def forward(self, value: Tensor) -> Float[Tensor, "thing width"]:
        """Embeddings of these values."""

    @abstractmethod
    def table(self) -> Float[Tensor, "row width"]:
        """The plain table with the same embeddings."""


class SmoothedEmbedding(ComputedEmbedding):
    """Kernel-smoothed embeddings of ordinal categories such as years: `kernel` @ rows.

    Neighbouring values then have similar embeddings, rare values too.

    >>> tent = SmoothedEmbedding(nn.Parameter(torch.tensor([[1.0], [3.0]])), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    >>> tent(torch.tensor([0, 1])).tolist(), tent.table().tolist()
    ([[2.0], [3.0]], [[2.0], [3.0]])
    """

    kernel: Tensor

    def __init__(self, rows: nn.Parameter, kernel: Float[Tensor, "row row"]) -> None:
        super().__init__()
        self.rows = rows
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, value: Int[Tensor, " thing"]) -> Float[Tensor, "thing width"]:
        return self.table()[value]

    def table(self) -> Float[Tensor, "row width"]:
        found: Tensor = self.kernel @ self.rows
        return found


class UserHistoryEmbedding(ComputedEmbedding):
    """A user's vector: sum of the embeddings of the user's events over the root of their number, the current row left out.

    `times[user, code]`: number of events with this code, which encodes an item and a label; it may be sparse. A value is the user's
    row; user + users · (1 + code) leaves one event with this code out, so that a training row does not see its own label.

    The sums of all users are one product with a sparse matrix: its cost grows with the events of the log, not with users × codes.
    Where no gradient is taken by `codes` it is computed once, and again when their values differ.

    >>> history = UserHistoryEmbedding(torch.tensor([[0, 0], [1, 0], [3, 1]]), width=1, init_std=0.0)
    >>> _ = history.codes.data.copy_(torch.tensor([[1.0], [5.0]]))
    >>> history(torch.tensor([0, 1, 2, 2 + 3 * 1])).tolist()      # the last without one event of code 0
    [[0.0], [1.0], [4.0], [4.041...]]
    """

    times: Tensor
    transposed: Tensor
    counts: Tensor

    def __init__(self, times: Int[Tensor, "user event"], width: int, init_std: float) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(times.shape[1], width) * init_std)
        entries = (times if times.is_sparse else times.to_sparse()).to(self.codes)
        self.register_buffer("times", _compressed(entries), persistent=False)
        self.register_buffer("transposed", _compressed(entries.t()), persistent=False)
        self.register_buffer("counts", entries.sum(dim=1).to_dense(), persistent=False)
        self._kept: tuple[Tensor, Tensor] | None = None
        """Codes, and their sums."""

    def forward(self, value: Int[Tensor, " thing"]) -> Float[Tensor, "thing width"]:
        users, left_out = value % len(self.counts), value // len(self.counts) - 1
        is_left_out = (left_out >= 0).to(self.codes)
        own = functional.embedding(left_out.clamp(min=0), self.codes) * is_left_out[:, None]
        counts = (self.counts[users] - is_left_out).clamp(min=1)
        return (self._sums()[users] - own) / counts.sqrt()[:, None]

    def table(self) -> Float[Tensor, "user width"]:
        return self._sums() / self.counts.clamp(min=1).sqrt()[:, None]

    def _sums(self) -> Float[Tensor, "user width"]:
        if torch.is_grad_enabled() and self.codes.requires_grad:
            self._kept = None
            return self._product()
        kept = self._kept
        if kept is None or not torch.equal(kept[0], self.codes):
            kept = self._kept = self.codes.detach().clone(), self._product().detach()
        return kept[1]

    def _product(self) -> Float[Tensor, "user width"]:
        found: Tensor = _SparseProduct.apply(self.times, self.transposed, self.codes)  # type: ignore[no-untyped-call]
        return found


class _SparseProduct(torch.autograd.Function):
    """`matrix` @ `dense`, differentiable by the dense one; the transpose of the matrix is given, and not made in every step."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, dense: Tensor) -> Tensor:
        ctx.of_gradient = transposed, matrix
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        found: Tensor = _SparseProduct.apply(*ctx.of_gradient, gradient)  # type: ignore[no-untyped-call]
        return None, None, found


def _compressed(entries: Tensor) -> Tensor:
    """In rows (CSR)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return entries.coalesce().to_sparse_csr()
