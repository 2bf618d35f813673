"""Embedding tables that are computed during training and stored as plain tables afterwards."""

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional

from newcomer.shapes import Float, Int, Tensor

CHUNK = 1024
"""Users whose vectors are computed at a time."""


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

    `times[user, code]`: number of events with this code, which encodes an item and a label. A value is the user's row;
    user + users · (1 + code) leaves one event with this code out, so that a training row does not see its own label.

    >>> history = UserHistoryEmbedding(torch.tensor([[0, 0], [1, 0], [3, 1]]), width=1, init_std=0.0)
    >>> _ = history.codes.data.copy_(torch.tensor([[1.0], [5.0]]))
    >>> history(torch.tensor([0, 1, 2, 2 + 3 * 1])).tolist()      # the last without one event of code 0
    [[0.0], [1.0], [4.0], [4.041...]]
    """

    times: Tensor

    def __init__(self, times: Int[Tensor, "user event"], width: int, init_std: float) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(times.shape[1], width) * init_std)
        self.register_buffer("times", times, persistent=False)

    def forward(self, value: Int[Tensor, " thing"]) -> Float[Tensor, "thing width"]:
        users, of = torch.unique(value % len(self.times), return_inverse=True)  # each user of a batch is summed once
        times = self.times[users].to(self.codes)
        left_out = value // len(self.times) - 1
        is_left_out = (left_out >= 0)[:, None].to(self.codes)
        own = functional.embedding(left_out.clamp(min=0), self.codes) * is_left_out
        counts = times.sum(dim=1, keepdim=True)[of] - is_left_out
        return ((times @ self.codes)[of] - own) / counts.clamp(min=1).sqrt()

    def table(self) -> Float[Tensor, "user width"]:
        users = torch.arange(len(self.times), device=self.times.device)
        return torch.cat([self(part) for part in torch.split(users, CHUNK)])
