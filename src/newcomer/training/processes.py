"""One process or several side by side (`torchrun`, `accelerate launch`), each with a device and a share of every batch."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from newcomer.errors import LearnerError

LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
"""What a launcher says in the environment of every process it starts."""


class Processes:
    """Who takes part. All processes hold the same parameters and draw the same numbers; they differ in the examples they see."""

    def __init__(self, device: str | None = None) -> None:
        self.count, self.index = launched()
        if self.count == 1:
            self.device = pick_device(device)
            return
        if device not in (None, "cpu", "cuda"):
            raise LearnerError(
                f"device '{device}' cannot be used by {self.count} processes; leave it out, or say cpu or cuda"
            )
        from accelerate import PartialState  # opens the connection between the processes

        self.device = PartialState(cpu=device == "cpu").device

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch; the parts of all processes are the batch."""
        return indices[self.index :: self.count]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace these tensors by their sums over all processes, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([t.detach().flatten() for t in tensors])
        torch.distributed.all_reduce(flat)
        for t, total in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            t.copy_(total.view_as(t))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()


def is_first() -> bool:
    """Whether this process is the one that writes and speaks, of all that `torchrun` or `accelerate launch` started."""
    return launched()[1] == 0


def launched() -> tuple[int, int]:
    """How many processes were started side by side, and which of them this is; 1 and 0 where none of both launchers did it.

    A launcher sets all of `LAUNCHED`. One of them alone is left over from elsewhere, such as a `RANK` in a shell or in the job of
    a cluster, and means nothing.
    """
    count, index, local = (_whole_number(name) for name in LAUNCHED)
    if count is None or index is None or local is None or not 0 <= index < count:
        return 1, 0
    return count, index


def _whole_number(name: str) -> int | None:
    found = os.environ.get(name, "")
    return int(found) if found.isdecimal() else None


def pick_device(name: str | None) -> torch.device:
    """The device of this name, else the GPU if there is one, else the CPU.

    Raises LearnerError for a device that torch does not know or see.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LearnerError(f"device '{name}' cannot be used ({str(error).splitlines()[0]})") from None
    return device
