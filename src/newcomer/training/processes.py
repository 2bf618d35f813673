"""One process or several side by side (`torchrun`, `accelerate launch`), each with a device and a share of every batch."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from newcomer.errors import LearnerError


class Processes:
    """Who takes part. All processes hold the same parameters and draw the same numbers; they differ in the examples they see."""

    def __init__(self, device: str | None = None) -> None:
        self.count, self.index = _launched()
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
    return _launched()[1] == 0


def _launched() -> tuple[int, int]:
    """How many processes a launcher started, and which of them this is, from 0.

    One variable alone says nothing: batch systems, notebooks and older jobs leave a RANK or a WORLD_SIZE behind. Only a launcher
    sets both and the address at which the processes meet.
    """
    count, index = (os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK"))
    if not (count.isdecimal() and index.isdecimal() and os.environ.get("MASTER_ADDR")):
        return 1, 0
    return (int(count), int(index)) if int(index) < int(count) else (1, 0)


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
