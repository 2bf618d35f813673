"""A store is a folder: a manifest with checksums, and one safetensors file for every stage that was learned.

    manifest.json             format, learner, settings, dependencies, the stages with their files' SHA-256, and its own
    stage-000.safetensors     what the first stage added: tensors, and its info as JSON in the file's header
    stage-001.safetensors     …

Stages are only ever appended. A file appears whole or not at all, and the manifest names it only when it is on disk: after a
kill at any moment, or on a full disk, the store is what it was after the last complete stage.
"""

import hashlib
import json
import re
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import Timeout
from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from newcomer.errors import StoreError
from newcomer.printable import stage_title
from newcomer.settings import Json, changes
from newcomer.store.writing import take_lock, to_json, write_whole

FORMAT = 3
MANIFEST = "manifest.json"
STAGE_FILE = re.compile(r"stage-\d{3,9}\.safetensors", re.ASCII)
"""Name of a stage's file; manifests with other names or paths are refused."""
DAMAGED = "restore the folder from a copy"
ROOM = 2**16
"""Free disk space required before training, in bytes."""


@dataclass(frozen=True)
class Entry:
    """What one stage added to a learner: tensors, and JSON information."""

    name: str
    tensors: Mapping[str, Tensor]
    info: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Content of the manifest."""

    learner: str
    settings: Mapping[str, Json]
    depends_on: Mapping[str, Json]
    """What the learner depends on and the store does not hold: a backbone by name and fingerprint, or a schema."""
    stages: Sequence[Mapping[str, Json]] = ()
    format: int = FORMAT


class Store:
    """A store on disk; writing takes its lock.

    Raises StoreError if the folder holds no store, another format, or a file that differs from its checksum.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def exists(self) -> bool:
        return (self.folder / MANIFEST).exists()

    def manifest(self) -> Manifest:
        path = self.folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content["format"]
            checksum, digest = content.pop("sha256", None), _digest(content)
        except FileNotFoundError:
            raise StoreError(
                f"{self.folder}: no store here (no {MANIFEST}); give the folder a model was saved to"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise StoreError(f"{path}: not a store's manifest ({_reason(error)}); {DAMAGED}") from None
        if type(version) is not int:
            raise StoreError(f"{path}: not a store's manifest (format {str(version)[:20]!r}); {DAMAGED}")
        if version > FORMAT:
            raise StoreError(f"{path}: format {version}, this newcomer reads up to {FORMAT}; update newcomer")
        if version < FORMAT:
            raise StoreError(f"{path}: format {version} is older than the first release; train the model again")
        if checksum != digest:
            raise StoreError(f"{path}: its content is not what was written (checksum); {DAMAGED}")
        if (problem := _problem(content)) is not None:
            raise StoreError(f"{path}: not a store's manifest ({problem}); {DAMAGED}")
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
        """Write these entries: existing ones must be equal, new ones are appended.

        `manifest` says whose they are; its list of stages is ignored. Raises StoreError when another process writes, when
        the folder holds another model or another history, or when the disk refuses; the store then stays as it was.
        """
        with self._writing():
            self._append(manifest, entries)

    def truncate(self, count: int) -> None:
        """Remove all stages after the first `count`, as when an interrupted run returns to its last complete stage.

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
                (self.folder / str(stage["file"])).unlink(missing_ok=True)

    def checkout(self, count: int, folder: Path) -> None:
        """Copy the first `count` stages to another folder.

        Raises StoreError where there are fewer stages, or the other folder holds a store already.
        """
        manifest = self.manifest()
        other = Store(folder)
        if other.exists():
            raise StoreError(f"{folder}: holds a store already; choose another folder")
        other.write(manifest, self.entries(count))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the store's lock; a new folder is removed again unless something was saved.

        Raises StoreError when another process writes it, or the disk refuses.
        """
        made = [parent for parent in (self.folder, *self.folder.parents) if not parent.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = take_lock(self.folder / ".lock", reentrant=True)
        except Timeout:
            raise StoreError(
                f"{self.folder}: another process is writing this store; try again when it is done"
            ) from None
        except OSError as error:
            raise self._refused(error) from None
        try:
            self._require_room()
            yield
        finally:
            if made and not self.exists():
                for file in {Path(lock.lock_file), self.folder / ".lock"}:
                    file.unlink(missing_ok=True)
            lock.release()
            with suppress(OSError):  # they hold a store now, or it never came to be
                for parent in made:
                    parent.rmdir()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock; a failure leaves the store unchanged."""
        with self.held():
            before, old = set(self._files()), self.exists()
            try:
                yield
            except BaseException as error:
                # where there was a store it may have its new manifest already: what that names stays
                named = {str(stage["file"]) for stage in self.manifest().stages} if old else set()
                for file in set(self._files()) - before:
                    if file.name not in named:
                        file.unlink()
                if isinstance(error, OSError):
                    raise self._refused(error) from None
                raise

    def clear(self) -> None:
        """Remove the store's files, also damaged ones; other files in the folder stay. Raises StoreError: see `write`."""
        if self.folder.is_dir():
            with self.held():
                for file in list(self._files()):
                    file.unlink()

    def _files(self) -> Iterator[Path]:
        """Files of the store; the folder may hold others, such as a service's database."""
        return (file for file in self.folder.iterdir() if _is_ours(file.name.removesuffix(".part")))

    def _require_room(self) -> None:
        """Raises StoreError, before training, if the store cannot be written."""
        try:
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(bytes(ROOM))
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(f"{self.folder}: could not be written ({error.strerror or error}); nothing was changed")

    def _append(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        stages: list[Mapping[str, Json]] = []
        if self.exists():
            old = self.manifest()
            if not _same_model(old, manifest):
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
                    raise StoreError(
                        f"{self.folder}: stage '{stage_title(entry.name)}' there was learned otherwise; save elsewhere"
                    )
                continue
            name = f"stage-{index:03d}.safetensors"
            write_whole(self.folder / name, content)
            stages.append({"name": entry.name, "file": name, "sha256": digest})
        self._write_manifest(manifest, stages)

    def _write_manifest(self, manifest: Manifest, stages: Sequence[Mapping[str, Json]]) -> None:
        content = {
            "format": FORMAT,
            "learner": manifest.learner,
            "settings": _plain(manifest.settings),
            "depends_on": _plain(manifest.depends_on),
            "stages": list(stages),
        }
        content["sha256"] = _digest(content)
        write_whole(self.folder / MANIFEST, to_json(content, indent=1))

    def _read(self, stage: Mapping[str, Json]) -> Entry:
        path = self.folder / str(stage["file"])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); restore the folder from a copy") from None
        if hashlib.sha256(content).hexdigest() != stage["sha256"]:
            raise StoreError(f"{path}: its bytes are not those that were written (checksum); restore it from a copy")
        try:
            (length,) = struct.unpack("<Q", content[:8])
            info = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["info"])
            tensors = read_safetensors(content)
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
            raise StoreError(f"{path}: not a stage of a store ({_reason(error)})") from None
        if not isinstance(info, dict):
            raise StoreError(f"{path}: not a stage of a store (its info is no table)")
        return Entry(str(stage["name"]), tensors, info)


PLACES = ("name", "folder")
"""Keys that only locate something with a fingerprint; they may differ between machines."""
FILLED_IN = ("pooling", "max_tokens")
"""Keys that may be None for a default."""


def differing(old: Mapping[str, Json], new: Mapping[str, Json]) -> dict[str, tuple[Json, Json]]:
    """Differences of two `depends_on` tables, by path, with both values.

    Of a part with a fingerprint only what both say counts, and not where it lies: a later version says more of the same thing.
    """
    old, new = _plain(old), _plain(new)
    for key in old.keys() & new.keys():
        was, now = old[key], new[key]
        if isinstance(was, dict) and isinstance(now, dict) and "fingerprint" in was and "fingerprint" in now:
            old[key], new[key] = _shared(was, now), _shared(now, was)
    return changes(old, new)


def _shared(part: Mapping[str, Json], other: Mapping[str, Json]) -> dict[str, Json]:
    """Keys that both tables have; see `differing`."""
    return {
        key: _shared(value, other[key]) if isinstance(value, dict) and isinstance(other[key], dict) else value
        for key, value in part.items()
        if key in other and key not in PLACES and not (key in FILLED_IN and None in (value, other[key]))
    }


def _same_model(old: Manifest, new: Manifest) -> bool:
    """Whether two manifests are of the same model; settings may change between stages."""
    return old.learner == new.learner and not differing(old.depends_on, new.depends_on)


def _plain(content: Mapping[str, Json]) -> dict[str, Json]:
    """The value after a JSON round trip."""
    plain: dict[str, Json] = json.loads(json.dumps(dict(content)))
    return plain


def _digest(content: Mapping[str, Json]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _to_bytes(entry: Entry) -> bytes:
    tensors = {name: tensor.detach().to(torch.device("cpu")).contiguous() for name, tensor in entry.tensors.items()}
    info = to_json(dict(entry.info), sort_keys=True)
    return to_safetensors(tensors, metadata={"info": info})


def _is_ours(name: str) -> bool:
    return name == MANIFEST or STAGE_FILE.fullmatch(name) is not None


def _problem(content: Mapping[str, Json]) -> str | None:
    """Why this is not a valid manifest, or None."""
    parts = {
        "learner": (str, "text"),
        "settings": (dict, "table"),
        "depends_on": (dict, "table"),
        "stages": (list, "list"),
    }
    for key in content.keys() | parts:
        if key != "format" and key not in parts:
            return f"nothing is called '{key}' there"
        if key in parts and not isinstance(content.get(key), parts[key][0]):
            return f"'{key}' is no {parts[key][1]}"
    seen = set[str]()
    for stage in content["stages"]:
        if not isinstance(stage, dict) or not all(isinstance(stage.get(k), str) for k in ("name", "file", "sha256")):
            return "a stage without name, file and sha256"
        if STAGE_FILE.fullmatch(stage["file"]) is None or stage["file"] in seen:
            return f"a stage's file is called '{stage['file']}'"
        seen.add(stage["file"])
    return None


def _reason(error: Exception) -> str:
    """First line of an error's message."""
    if isinstance(error, KeyError):
        return f"no '{error.args[0]}'"
    return (str(error) or type(error).__name__).splitlines()[0]
