"""A store is a folder: a manifest with checksums, and one safetensors file for every stage that was learned.

    manifest.json             format, learner, settings, what it stands on, the stages with their files' SHA-256, and its own
    stage-000.safetensors     what the first stage added: tensors, and its facts as JSON in the file's header
    stage-001.safetensors     …

Stages are only ever appended. A file appears whole or not at all, and the manifest names it only when it is on disk: after a
kill at any moment, or on a full disk, the store is what it was after the last complete stage.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from newcomer.errors import StoreError
from newcomer.printable import json_text
from newcomer.settings import Json
from newcomer.store.atomic import PART, write_atomically
from newcomer.store.locks import NAME as LOCK
from newcomer.store.locks import locked

FORMAT = 2
MANIFEST = "manifest.json"
OURS = re.compile(r"(manifest\.json|stage-\d{3,}\.safetensors)(\.[0-9a-f]+)?")
"""The names of the files that a store is made of, and with `.part` of those that are being written."""
JSON_NAMES = {int: "number", str: "text", dict: "object", list: "list"}


@dataclass(frozen=True)
class Entry:
    """What one stage added to a learner: tensors, and facts that JSON can hold."""

    name: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What a store says of itself before any tensor is read."""

    learner: str
    settings: Mapping[str, Json]
    stands_on: Mapping[str, Json]
    """What the learner was built on and does not store: a backbone by name and fingerprint, or a log's schema."""
    stages: Sequence[Mapping[str, Json]] = ()
    format: int = FORMAT


class Store:
    """One store on disk, opened for reading; writing takes its lock.

    Raises StoreError where the folder holds no store, a newer format, or a file that is not what the manifest says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def exists(self) -> bool:
        return (self.folder / MANIFEST).exists()

    def manifest(self) -> Manifest:
        path = self.folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = int(content["format"])
        except FileNotFoundError:
            raise StoreError(
                f"{self.folder}: no store here (no {MANIFEST}); give the folder a model was saved to"
            ) from None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
            raise StoreError(f"{path}: not a store's manifest ({error}); restore the folder from a copy") from None
        if version > FORMAT:
            raise StoreError(f"{path}: format {version}, this newcomer reads up to {FORMAT}; update newcomer")
        if version < FORMAT:
            raise StoreError(f"{path}: format {version} is older than the first release; teach the model again")
        if content.pop("sha256", None) != _digest(content):
            raise StoreError(f"{path}: its content is not what was written (checksum); restore the folder from a copy")
        if wrong := _wrong(content):
            raise StoreError(f"{path}: not a store's manifest ({wrong}); restore the folder from a copy")
        return Manifest(**content)

    def entries(self, count: int | None = None) -> list[Entry]:
        """The first `count` stages (all by default), each checked against its checksum.

        Raises StoreError where there are fewer.
        """
        stages = self.manifest().stages
        if count is not None and not 0 <= count <= len(stages):
            raise StoreError(f"{self.folder}: holds {len(stages)} stages, not {count}; give a number from 0 to that")
        return [self._read(stage) for stage in stages[:count]]

    def write(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        """Bring the store to exactly these entries: those it has already must be the same ones, the rest is appended.

        `manifest` says whose they are; its list of stages is ignored. Raises StoreError when another process writes, when
        the folder holds another model or another history, or when the disk refuses; the store then stays as it was.
        """
        with self._writing():
            self._append(manifest, entries)

    def truncate(self, count: int) -> None:
        """Forget all stages but the first `count`: how a run that was cut off returns to its last complete stage.

        Raises StoreError: see `write`.
        """
        with self._writing():
            manifest = self.manifest()
            if len(manifest.stages) < count:
                raise StoreError(
                    f"{self.folder}: holds {len(manifest.stages)} stages, not {count}; restore it from a copy"
                )
            self._write_manifest(manifest, manifest.stages[:count])
            for stage in manifest.stages[count:]:
                (self.folder / stage["file"]).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove a store that was begun: its manifest first, then its stages; other files beside them stay.

        Raises StoreError where another process writes it, or the disk refuses.
        """
        if not self.folder.is_dir():
            return
        with self._writing():
            for file in sorted(self._files(), key=lambda file: file.name):  # the manifest is the first
                file.unlink(missing_ok=True)

    def checkout(self, count: int, folder: Path) -> None:
        """Copy the state after the first `count` stages to a folder of its own; this store stays as it is.

        Raises StoreError where there are fewer stages, or the other folder holds a store already.
        """
        manifest = self.manifest()
        other = Store(folder)
        if other.exists():
            raise StoreError(f"{folder}: holds a store already; choose another folder")
        other.write(manifest, self.entries(count))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes this store for so long; a folder that was not there is gone again unless something was saved.

        Raises StoreError when another process writes it, or the disk refuses.
        """
        made = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        with ExitStack() as stack:
            stack.callback(_remove_empty, made)  # last: they hold a store now, or it never came to be
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                busy = f"{self.folder}: another process is writing this store; try again when it is done"
                stack.enter_context(locked(self.folder, busy))
            except OSError as error:
                raise self._refused(error) from None
            try:
                yield
            finally:
                if made and not self.exists():
                    with suppress(OSError):
                        (self.folder / LOCK).unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The store is ours for this long; what fails leaves it as it was."""
        with self.held():
            self._remove_parts()
            before, old = set(self._files()), self.exists()
            try:
                yield
            except BaseException as error:
                # where there was a store it may have its new manifest already: what that names stays
                named = {stage["file"] for stage in self.manifest().stages} if old else set()
                for file in set(self._files()) - before:
                    if file.name not in named:
                        file.unlink()
                if isinstance(error, OSError):
                    raise self._refused(error) from None
                raise

    def _files(self) -> Iterator[Path]:
        """Those that writing makes; beside them others may lie, such as the database of a service that is running."""
        return (file for file in self.folder.iterdir() if OURS.fullmatch(file.name.removesuffix(PART)))

    def _remove_parts(self) -> None:
        """What a kill left of files that were being written."""
        try:
            for file in [*self._files()]:
                if file.name.endswith(PART):
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(f"{self.folder}: could not be written ({error.strerror or error}); nothing was changed")

    def _append(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        stages: list[Mapping[str, Json]] = []
        if self.exists():
            old = self.manifest()
            if _identity(old) != _identity(manifest):
                raise StoreError(f"{self.folder}: holds another model ({old.learner}); save to a folder of its own")
            stages = list(old.stages)
        if len(stages) > len(entries):
            raise StoreError(
                f"{self.folder}: holds {len(stages)} stages, this model only {len(entries)}; load it first"
            )
        for index, entry in enumerate(entries):
            content = _to_bytes(entry)
            digest = hashlib.sha256(content).hexdigest()
            if index < len(stages):
                if stages[index]["sha256"] != digest:
                    raise StoreError(f"{self.folder}: stage '{entry.name}' there was learned otherwise; save elsewhere")
                continue
            name = _file_of(index)
            write_atomically(self.folder / name, content)
            stages.append({"name": entry.name, "file": name, "sha256": digest})
        self._write_manifest(manifest, stages)

    def _write_manifest(self, manifest: Manifest, stages: Sequence[Mapping[str, Json]]) -> None:
        content = {
            "format": FORMAT,
            "learner": manifest.learner,
            "settings": _plain(manifest.settings),
            "stands_on": _plain(manifest.stands_on),
            "stages": list(stages),
        }
        content["sha256"] = _digest(content)
        write_atomically(self.folder / MANIFEST, json_text(content, indent=1).encode())

    def _read(self, stage: Mapping[str, Json]) -> Entry:
        path = self.folder / stage["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); restore the folder from a copy") from None
        if hashlib.sha256(content).hexdigest() != stage["sha256"]:
            raise StoreError(f"{path}: its bytes are not those that were written (checksum); restore it from a copy")
        try:
            (length,) = struct.unpack("<Q", content[:8])
            facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["facts"])
            if not isinstance(facts, dict):
                raise TypeError("its facts are no object")
            return Entry(stage["name"], read_safetensors(content), facts)
        except (SafetensorError, struct.error, KeyError, TypeError, ValueError, RecursionError) as error:
            raise StoreError(f"{path}: not a stage of a store ({error})") from None


def _file_of(index: int) -> str:
    """The name of a stage's file: a function of its place alone, so that no store names a file of another folder."""
    return f"stage-{index:03d}.safetensors"


def _wrong(content: Mapping[str, Json]) -> str | None:
    """What of a manifest is not as this library writes it, or None."""
    kinds = {"format": int, "learner": str, "settings": dict, "stands_on": dict, "stages": list}
    for key in content:
        if key not in kinds:
            return f"it has a part '{key}'"
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            return f"its {key} is no {JSON_NAMES[kind]}"
    for index, stage in enumerate(content["stages"]):
        if not isinstance(stage, dict) or not all(isinstance(stage.get(k), str) for k in ("name", "file", "sha256")):
            return f"stage {index} does not say its name, file and sha256"
        if stage["file"] != _file_of(index):
            return f"stage {index} would lie in '{stage['file']}', which is not {_file_of(index)}"
    return None


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def unnamed(stands_on: Mapping[str, Json]) -> dict[str, Json]:
    """What a learner stands on, without the names of what has a fingerprint: on another machine it may lie elsewhere."""
    return {
        key: {k: v for k, v in part.items() if k != "name"}
        if isinstance(part, dict) and "fingerprint" in part
        else part
        for key, part in _plain(stands_on).items()
    }


def _identity(manifest: Manifest) -> tuple[str, Json]:
    """What makes two stores the same model's; settings may change from stage to stage."""
    return manifest.learner, unnamed(manifest.stands_on)


def _plain(content: Mapping[str, Json]) -> dict[str, Json]:
    """As JSON would give it back."""
    plain: dict[str, Json] = json.loads(json.dumps(dict(content)))
    return plain


def _digest(content: Mapping[str, Json]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _to_bytes(entry: Entry) -> bytes:
    tensors = {name: tensor.detach().to(torch.device("cpu")).contiguous() for name, tensor in entry.tensors.items()}
    facts = json_text(dict(entry.facts), sort_keys=True)
    return to_safetensors(tensors, metadata={"facts": facts})
