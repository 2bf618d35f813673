"""Data parallelism over processes (`torchrun`, `accelerate launch`), each with a device and a share of every batch."""

import atexit
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from newcomer.errors import LearnerError
from newcomer.extras import optional_imports
from newcomer.training.launcher import world


class Processes:
    """The process group. All processes have the same parameters and random numbers, and different examples."""

    def __init__(self, device: str | None = None) -> None:
        self.count, self.index = world()
        if self.count == 1:
            self.device = pick_device(device)
            return
        if device not in (None, "cpu", "cuda"):
            raise LearnerError(
                f"device '{device}' cannot be used by {self.count} processes; leave it out, or say cpu or cuda"
            )
        with optional_imports():
            # Imported while a group is open, this module keeps it for ever: its functions have the group as a default argument.
            import torch.distributed.nn
            from accelerate import PartialState  # opens the connection between the processes

        opened = not torch.distributed.is_initialized()
        self.device = PartialState(cpu=device == "cpu").device
        if opened:
            # gloo's threads may hold the last reference to what they exchanged. One that frees it while Python ends would abort
            # the process (SIGABRT), so they end before.
            atexit.register(_close)

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """This process's share of a batch; the shares of all processes partition the batch."""
        return indices[self.index :: self.count]

    def shares(self, size: int) -> list[int]:
        """Sizes of all processes' shares of a batch of this size."""
        return [len(range(index, size, self.count)) for index in range(self.count)]

    def add_up_rows(self, gradient: Tensor | None, table: Tensor) -> Tensor:
        """The sum over all processes of a table's sparse gradient; None: no row of this process."""
        rows, values = torch.zeros(0, dtype=torch.long, device=table.device), table.detach()[:0]
        if gradient is not None:
            rows, values = gradient.coalesce().indices()[0], gradient.coalesce().values()
        counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(self.count)]
        torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        most = int(max(counts))
        all_rows, all_values = (
            [torch.empty(most, *part.shape[1:], dtype=part.dtype, device=part.device) for _ in range(self.count)]
            for part in (rows, values)
        )
        for found, part in ((all_rows, rows), (all_values, values)):
            torch.distributed.all_gather(found, torch.cat([part, part.new_zeros(most - len(part), *part.shape[1:])]))
        each = [int(count) for count in counts]
        indices = torch.cat([found[:n] for found, n in zip(all_rows, each, strict=True)])
        together = torch.cat([found[:n] for found, n in zip(all_values, each, strict=True)])
        return torch.sparse_coo_tensor(indices[None], together, table.shape, check_invariants=False).coalesce()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace these tensors by their sums over all processes, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([t.detach().flatten() for t in tensors])
        torch.distributed.all_reduce(flat)
        for t, total in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            t.copy_(total.view_as(t))

    def mean(self, number: float) -> float:
        """The mean over all processes, which is the same in each."""
        if self.count == 1:
            return number
        total = torch.tensor([number], device=self.device)
        self.add_up([total])
        return float(total) / self.count

    def agree(self, what: str) -> None:
        """Wait until all processes are here.

        Raises LearnerError, in all of them, if one is about to do something else: they would wait for each other in vain.
        """
        if self.count == 1:
            return
        found: list[str] = [what] * self.count
        torch.distributed.all_gather_object(found, what)
        if len(set(found)) > 1:
            others = ", ".join(f"process {index}: {said}" for index, said in enumerate(found))
            raise LearnerError(f"all processes must do the same in the same order, but they do not ({others})")


def _close() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(0.1)  # a sharded model keeps the group, whose threads go on: here they can free what they hold


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
