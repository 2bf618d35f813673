"""Checkpoints within a stage, so that training resumes after a kill."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from newcomer.errors import StoreError
from newcomer.nn.ctr.row_shards import RowShard, served, shards_of
from newcomer.store.tensor_files import save_file
from newcomer.training.launcher import is_first, world

Things = Mapping[str, nn.Module | torch.optim.Optimizer]


class Checkpoint:
    """One file for each part of a stage, in a folder that is removed when the stage is saved; without a folder nothing is written.

    Of several processes the first writes, and all read; a step is the same in any number of processes. Of a table whose rows are
    spread over them the first writes all rows, block by block, and each reads its own: a file does not say how many there were.

    What a part needs besides (its order of batches, its chance) must follow from the number of the step, so that a part that was
    resumed takes the same steps to the bit.
    """

    def __init__(self, folder: Path | None = None, every_seconds: float = 60.0) -> None:
        self.folder, self.every_seconds, self.last = folder, every_seconds, time.monotonic()
        self.of = ""
        """Digest of what the stage depends on; a checkpoint with another digest is refused."""
        self.prefix = ""
        """Begin of the files' names."""

    def beside(self, name: str) -> "Checkpoint":
        """A checkpoint in the same folder for another model that the stage trains; it is removed with this one."""
        other = Checkpoint(self.folder, self.every_seconds)
        other.prefix = f"{self.prefix}{name}-"
        return other

    def resume(self, part: str, things: Things) -> int:
        """Number of steps of this part that are done, after restoring all objects; 0 without a checkpoint.

        Raises StoreError for a file that is damaged or of other things.
        """
        if self.folder is None or not (path := self._path(part)).exists():
            return 0
        try:
            with safe_open(path, "pt") as file:
                kept = json.loads(file.metadata()["kept"])
                for name, thing in things.items() if kept["of"] == self.of else ():
                    _restore(thing, file, name + "/")
            of, step = kept["of"], int(kept["step"])
        except (SafetensorError, RecursionError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise StoreError(f"{path}: cannot be gone on from ({reason}); remove it to start again") from None
        if of != self.of:
            raise StoreError(f"{path}: was kept by a run of other settings or data; remove {self.folder} to start anew")
        return step

    def keep(self, part: str, step: int, things: Things, now: bool = False) -> None:
        """Write a checkpoint if the interval has passed, or `now`."""
        if self.folder is None:
            return
        due = now or time.monotonic() - self.last >= self.every_seconds
        if world()[0] == 1 and not due:
            return
        tensors = {f"{name}/{key}": value for name, thing in things.items() for key, value in _tensors(thing).items()}
        with served(shards_of(tensors), is_first()):
            if due and is_first():
                self._write(part, tensors, {"kept": json.dumps({"of": self.of, "step": step})})

    def _write(self, part: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        path = self._path(part)
        whole = path.with_name(f"{path.name}.{token_hex(4)}.part")  # a name that nobody can have laid a link at
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for old in path.parent.glob(f"{path.name}.*part"):  # of a process that was killed
                old.unlink()
            save_file(tensors, whole, metadata)
            whole.replace(path)
        except OSError as error:
            with suppress(OSError):
                whole.unlink(missing_ok=True)
            raise self._refused(path, error) from None
        self.last = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoints, after the stage was saved."""
        if self.folder is not None and is_first() and self.folder.exists():
            try:
                for path in self._own().glob("*.safetensors*"):
                    path.unlink()
                with suppress(OSError):  # other files lie there
                    self.folder.rmdir()
            except OSError as error:
                raise self._refused(self.folder, error) from None

    def _own(self) -> Path:
        """The folder. Raises StoreError for a symbolic link, whose target may not be ours."""
        assert self.folder is not None
        if self.folder.is_symlink():
            raise StoreError(f"{self.folder}: is a link, not a folder of a run; remove it")
        return self.folder

    def _refused(self, path: Path, error: Exception) -> StoreError:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        return StoreError(f"{path}: could not be written ({reason})")

    def _path(self, part: str) -> Path:
        return self._own() / f"{self.prefix}{part}.safetensors"


def _tensors(thing: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its state by name; of tables whose rows are spread over processes a shard."""
    if isinstance(thing, nn.Module):
        return dict(thing.state_dict(keep_vars=True))
    return {
        f"{number}.{key}": _like(parameter, value)
        for number, parameter in enumerate(_parameters(thing))
        for key, value in thing.state.get(parameter, {}).items()
    }


def _restore(thing: nn.Module | torch.optim.Optimizer, file: Any, prefix: str) -> None:
    """Set its state from an open file; of a shard its own rows are read."""
    names = [key.removeprefix(prefix) for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118

    def read(name: str, like: Tensor | None) -> Tensor:
        whole = file.get_slice(prefix + name)
        if isinstance(like, RowShard) and whole.get_shape()[:1] == [like.total]:
            rows: Tensor = whole[like.first : like.first + len(like)]
            return rows
        tensor: Tensor = file.get_tensor(prefix + name)
        return tensor

    if isinstance(thing, nn.Module):
        now = thing.state_dict(keep_vars=True)
        thing.load_state_dict({name: read(name, now.get(name)) for name in names})
        return
    state: dict[int, dict[str, Tensor]] = {}
    parameters = _parameters(thing)
    for name in names:
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = read(name, parameters[int(number)])
    thing.load_state_dict({"state": state, "param_groups": thing.state_dict()["param_groups"]})


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _like(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """What an optimizer keeps of a parameter; of each row of a shard, as a shard."""
    if isinstance(parameter, RowShard) and value.ndim and len(value) == len(parameter):
        return RowShard(value, parameter.total)
    return value
