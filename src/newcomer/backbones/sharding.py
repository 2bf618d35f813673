"""Fully sharded data parallelism (FSDP2) of a frozen model: each process holds a share of the weights of every block.

A block (`nn.gradient_checkpointing.blocks_of`) is gathered for its pass, and once more for its backward pass; what is outside of
blocks, and all that is trained, is whole in every process. So each pass is one of all processes: they make as many of them, in the
same order, of whatever batches. A process that has no batch left repeats one and drops the result (`ClassLearner`, `TrainingLoop`).
"""

from collections.abc import Callable
from inspect import signature
from threading import get_ident
from typing import Any

import torch
from torch import nn

from newcomer.errors import LearnerError, SettingError
from newcomer.nn.gradient_checkpointing import blocks_of
from newcomer.training.processes import Processes


def require_several(processes: Processes) -> None:
    """Raises SettingError if there is one process alone, which has nobody to share with."""
    if processes.count == 1:
        raise SettingError(
            "shard_backbone: there is one process, and the backbone is spread over at least two; start them with "
            "`torchrun --nproc_per_node 2`, or leave it out"
        )


class Sharding:
    """A model whose blocks are spread over processes, and its passes."""

    def __init__(self, name: str, model: nn.Module, processes: Processes) -> None:
        """Moves a model's blocks to the processes' devices, one after the other, and keeps a share of each.

        Raises SettingError for one process alone and a model without blocks.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        require_several(processes)
        blocks = blocks_of(model)
        if not blocks:
            raise SettingError(f"shard_backbone: the model of '{name}' has no list of equal blocks; leave it out")
        if "ignored_params" not in signature(fully_shard).parameters:
            raise SettingError(f"shard_backbone: torch {torch.__version__} is too old for it; install 2.8 or later")
        self.processes, self._thread = processes, get_ident()
        mesh = init_device_mesh(processes.device.type, (processes.count,))
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        inside = {parameter for block in blocks for parameter in block.parameters()}
        outside = {parameter for parameter in model.parameters() if parameter not in inside}
        # A root over all blocks lets a GPU gather the next one while it computes. It is a wrapper, as FSDP2 renames its class.
        self._root = _Whole(model)
        fully_shard(self._root, mesh=mesh, reshard_after_forward=True, ignored_params=outside)

    def run(self, **inputs: Any) -> Any:
        """Output of the model. Raises LearnerError in another thread than the one that sharded it."""
        self._require_thread()
        if not torch.is_inference_mode_enabled():
            return self._root(**inputs)()
        with torch.inference_mode(False), torch.no_grad():  # FSDP2 keeps its buffers for later passes with gradients
            return self._root(**inputs)()

    def agree(self, what: str) -> None:
        """Raises LearnerError unless all processes are about to do this."""
        self._require_thread()
        self.processes.agree(what)

    def _require_thread(self) -> None:
        if get_ident() != self._thread:
            raise LearnerError(
                "a sharded backbone computes in the thread that opened it, as passes of several threads could meet in another "
                "order in another process; open the store without shard_backbone to use threads"
            )


class _Whole(nn.Module):
    """A model whose output FSDP2 does not see, as it warns of views there; a root without weights needs no hook on it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Callable[[], Any]:
        output = self.model(**inputs)
        return lambda: output
