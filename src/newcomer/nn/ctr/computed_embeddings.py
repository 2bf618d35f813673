"""Tables of vectors that are computed while they are learned, and are plain tables afterwards."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from newcomer.shapes import Float, Int, Tensor

AT_ONCE = 1024
"""Users whose vectors are computed at once."""


class WrittenTable(nn.Module, ABC):
    """What stands in a table's place while it is learned (`FieldEmbeddings.lend`)."""

    @abstractmethod
    def forward(self, value: Tensor) -> Float[Tensor, "thing width"]:
        """The vectors of these values, as the table's own would be had."""

    @abstractmethod
    def table(self) -> Float[Tensor, "row width"]:
        """The plain table that says the same from now on."""


class Smoothed(WrittenTable):
    """A table whose rows are means over the rows of like values: `kernel` @ rows.

    Values that lie on a line, as years do, then say nearly what their neighbours say, also where few events show them.

    >>> tent = Smoothed(nn.Parameter(torch.tensor([[1.0], [3.0]])), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
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


class Tastes(WrittenTable):
    """A user's vector is the sum of vectors of what he did, over the root of how much it was; the row at hand is left out.

    `times[user, deed]` says how often; a deed is, say, an item clicked or not clicked. A value is the user's row, or, where one of
    his deeds is the row's own and must not tell its answer, user + users · (1 + deed).

    >>> tastes = Tastes(torch.tensor([[0, 0], [1, 0], [3, 1]]), width=1, deviation=0.0)
    >>> _ = tastes.deeds.data.copy_(torch.tensor([[1.0], [5.0]]))
    >>> tastes(torch.tensor([0, 1, 2, 2 + 3 * 1])).tolist()      # the last without one time of deed 0
    [[0.0], [1.0], [4.0], [4.041...]]
    """

    times: Tensor

    def __init__(self, times: Int[Tensor, "user deed"], width: int, deviation: float) -> None:
        super().__init__()
        self.deeds = nn.Parameter(torch.randn(times.shape[1], width) * deviation)
        self.register_buffer("times", times, persistent=False)

    def forward(self, value: Int[Tensor, " thing"]) -> Float[Tensor, "thing width"]:
        users, deeds = self.times.shape
        times = self.times[value % users].to(self.deeds)
        own = value // users - 1
        if (own >= 0).any():
            times = torch.cat([times, times[:, :1]], dim=1)  # one column more, for rows without a deed of their own
            times[torch.arange(len(own), device=own.device), torch.where(own < 0, deeds, own)] -= 1
            times = times[:, :deeds]
        return times @ self.deeds / times.sum(dim=1, keepdim=True).clamp(min=1).sqrt()

    def table(self) -> Float[Tensor, "user width"]:
        users = torch.arange(len(self.times), device=self.times.device)
        return torch.cat([self(part) for part in torch.split(users, AT_ONCE)])
