"""Checkpoints within a stage, so that training resumes after a kill."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from newcomer.errors import StoreError
from newcomer.training.launcher import is_first

Things = Mapping[str, nn.Module | torch.optim.Optimizer]


class Checkpoint:
    """One file for each part of a stage, in a folder that is removed when the stage is saved; without a folder nothing is written.

    Of several processes the first writes, and all read; a step is the same in any number of processes.

    What a part needs besides (its order of batches, its chance) must follow from the number of the step, so that a part that was
    resumed takes the same steps to the bit.
    """

    def __init__(self, folder: Path | None = None, every_seconds: float = 60.0) -> None:
        self.folder, self.every_seconds, self.last = folder, every_seconds, time.monotonic()
        self.of = ""
        """Digest of what the stage depends on; a checkpoint with another digest is refused."""

    def resume(self, part: str, things: Things) -> int:
        """Number of steps of this part that are done, after restoring all objects; 0 without a checkpoint.

        Raises StoreError for a file that is damaged or of other things.
        """
        if self.folder is None or not (path := self._path(part)).exists():
            return 0
        try:
            with safe_open(path, "pt") as file:
                kept = json.loads(file.metadata()["kept"])
            tensors = load_file(path) if kept["of"] == self.of else {}
            for name, thing in things.items() if tensors else ():
                _restore(thing, {k.removeprefix(name + "/"): v for k, v in tensors.items() if k.startswith(name + "/")})
            of, step = kept["of"], int(kept["step"])
        except (SafetensorError, RecursionError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise StoreError(f"{path}: cannot be gone on from ({reason}); remove it to start again") from None
        if of != self.of:
            raise StoreError(f"{path}: was kept by a run of other settings or data; remove {self.folder} to start anew")
        return step

    def keep(self, part: str, step: int, things: Things, now: bool = False) -> None:
        """Write a checkpoint if the interval has passed, or `now`."""
        if self.folder is None or not is_first() or not (now or time.monotonic() - self.last >= self.every_seconds):
            return
        tensors = {f"{name}/{key}": value for name, thing in things.items() for key, value in _tensors(thing).items()}
        path = self._path(part)
        whole = path.with_name(f"{path.name}.{token_hex(4)}.part")  # a name that nobody can have laid a link at
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for old in path.parent.glob(f"{path.name}.*part"):  # of a process that was killed
                old.unlink()
            kept = {"kept": json.dumps({"of": self.of, "step": step})}
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, whole, kept)
            whole.replace(path)
        except (OSError, SafetensorError) as error:
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
        return self._own() / f"{part}.safetensors"


def _tensors(thing: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    if isinstance(thing, nn.Module):
        return dict(thing.state_dict())
    return {f"{n}.{key}": value for n, state in thing.state_dict()["state"].items() for key, value in state.items()}


def _restore(thing: nn.Module | torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    if isinstance(thing, nn.Module):
        thing.load_state_dict(tensors)
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    thing.load_state_dict({"state": state, "param_groups": thing.state_dict()["param_groups"]})
