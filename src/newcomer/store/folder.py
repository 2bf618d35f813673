"""A store is a folder: a manifest with checksums, and safetensors files of every stage that was learned.

    manifest.json             format, learner, settings, dependencies, the stages with their files' SHA-256, and its own
    stage-000.safetensors     what the first stage added: tensors, and its info as JSON in the file's header
    state-000.safetensors     the learner's state after the first stage, where it is more than what the stages added
    stage-001.safetensors     …

Stages are only ever appended. Earlier states take at most twice the last one's size (or `STATES_LIMIT`), so that a store does not
grow with stages times classes; those beyond are removed. A file appears whole or not at all, and the manifest names it only when
it is on disk: after a kill at any moment, or on a full disk, the store is what it was after the last complete stage.
"""

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from newcomer.errors import DataWarning, StoreError
from newcomer.printable import stage_title
from newcomer.settings import Json, changes
from newcomer.store.entry import Entry, StoredState, kept_states, reason, sha256
from newcomer.store.tensor_files import write_file
from newcomer.store.writing import take_lock, to_json, write_whole

FORMAT = 4
MANIFEST = "manifest.json"
STAGE_FILE = re.compile(r"stage-\d{3,9}\.safetensors", re.ASCII)
STATE_FILE = re.compile(r"state-\d{3,9}\.safetensors", re.ASCII)
"""Names of a stage's files; manifests with other names or paths are refused."""
STATES_LIMIT = 2**26
"""Bytes of earlier states that a store keeps whatever the size of the last one."""
DAMAGED = "restore the folder from a copy"
ROOM = 2**16
"""Free disk space required before training, in bytes."""


@dataclass(frozen=True)
class Manifest:
    """Content of the manifest."""

    learner: str
    settings: Mapping[str, Json]
    depends_on: Mapping[str, Json]
    """What the learner depends on and the store does not hold: a backbone by name and fingerprint, or a schema."""
    stages: Sequence[Mapping[str, Json]] = ()
    """Name, file and digest of each; `state`: file, digest and size of its state, None if it is no longer kept."""
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
            raise StoreError(f"{path}: not a store's manifest ({reason(error)}); {DAMAGED}") from None
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
        """The first `count` stages (all by default), each checked against its checksum; states are read when they are used.

        Raises StoreError where there are fewer, and if the state after them is no longer kept.
        """
        stages = self.manifest().stages
        if count is not None and not hasattr(count, "__index__"):
            raise StoreError(f"{self.folder}: stages = {count!r}; give a whole number")
        if count is not None and not 0 <= count <= len(stages):
            raise StoreError(f"{self.folder}: holds {len(stages)} stages, not {count}; give a number from 0 to that")
        self._require_state(stages, len(stages) if count is None else count)
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

        Raises StoreError: see `write`; and if the state after the first `count` is no longer kept.
        """
        with self._writing():
            manifest = self.manifest()
            if len(manifest.stages) < count:
                raise StoreError(
                    f"{self.folder}: holds {len(manifest.stages)} stages, not {count}; restore it from a copy"
                )
            self._require_state(manifest.stages, count)
            self._write_manifest(manifest, manifest.stages[:count])

    def checkout(self, count: int, folder: Path) -> None:
        """Copy the first `count` stages to another folder.

        Raises StoreError where there are fewer stages, or the other folder holds a store already.
        """
        manifest = self.manifest()
        other = Store(folder)
        if other.exists():
            raise StoreError(f"{folder}: holds a store already; choose another folder")
        entries = self.entries(count)
        other.write(manifest, [*map(_without_damaged_state, entries[:-1]), *entries[-1:]])

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
                named = files_of(self.manifest().stages) if old else set()
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
            if index < len(stages):
                if stages[index]["sha256"] != entry.sha256 or not _same_state(stages[index].get("state"), entry):
                    raise StoreError(
                        f"{self.folder}: stage '{stage_title(entry.name)}' there was learned otherwise; save elsewhere"
                    )
                continue
            name = f"stage-{index:03d}.safetensors"
            entry.write(self.folder / name)
            stage: dict[str, Json] = {"name": entry.name, "file": name, "sha256": entry.sha256}
            stages.append(stage | self._write_state(index, entry))
        self._write_manifest(manifest, _thinned(stages))

    def _write_state(self, index: int, entry: Entry) -> dict[str, Json]:
        """Write the entry's state, if it has one. Returns what the manifest says of it."""
        if entry.state is None or (isinstance(entry.state, StoredState) and not entry.state.is_there):
            return {"state": None}
        if not entry.state:
            return {}
        path = self.folder / f"state-{index:03d}.safetensors"
        digest = write_file(entry.state, path)
        return {"state": {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}}

    def _write_manifest(self, manifest: Manifest, stages: Sequence[Mapping[str, Json]]) -> None:
        """Write the manifest; then remove files that it does not name."""
        content = {
            "format": FORMAT,
            "learner": manifest.learner,
            "settings": _plain(manifest.settings),
            "depends_on": _plain(manifest.depends_on),
            "stages": list(stages),
        }
        content["sha256"] = _digest(content)
        write_whole(self.folder / MANIFEST, to_json(content, indent=1))
        named = {MANIFEST, *files_of(stages)}
        for file in list(self._files()):
            if file.name not in named:
                file.unlink(missing_ok=True)

    def _require_state(self, stages: Sequence[Mapping[str, Json]], count: int) -> None:
        """Raises StoreError if the state after the first `count` of these stages is no longer kept."""
        if count and stages[count - 1].get("state", {}) is None:
            kept = ", ".join(str(k) for k, stage in enumerate(stages, 1) if stage.get("state", {}) is not None)
            raise StoreError(f"{self.folder}: the state after {count} stages is no longer kept; those after {kept} are")

    def _read(self, stage: Mapping[str, Json]) -> Entry:
        saved = stage.get("state", {})
        state = StoredState(self.folder / saved["file"], saved["sha256"]) if saved else saved
        return Entry.read(str(stage["name"]), self.folder / str(stage["file"]), str(stage["sha256"]), state)


def _without_damaged_state(entry: Entry) -> Entry:
    """The entry of an earlier stage; DataWarning if its state is damaged, which later ones do not need."""
    try:
        dict(entry.state or {})  # read, and so checked
    except StoreError as error:
        warnings.warn(f"{error}; the copy is without this earlier state", DataWarning, stacklevel=3)
        return entry.without_state()
    return entry


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
    return sha256(json.dumps(content, sort_keys=True).encode())


def _is_ours(name: str) -> bool:
    return name == MANIFEST or any(pattern.fullmatch(name) for pattern in (STAGE_FILE, STATE_FILE))


def files_of(stages: Sequence[Mapping[str, Json]]) -> set[str]:
    """Names of the files of these stages."""
    states = (stage["state"]["file"] for stage in stages if stage.get("state"))
    return {*(str(stage["file"]) for stage in stages), *states}


def _same_state(saved: Mapping[str, Json] | None, entry: Entry) -> bool:
    """Whether the states are the same, as far as both are kept."""
    return not saved or entry.state is None or saved["sha256"] == entry.state_sha256


def _thinned(stages: list[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """The stages, without earlier states that take more than twice the size of the last one and `STATES_LIMIT`."""
    sizes = [stage["state"]["bytes"] if stage.get("state") else None for stage in stages]
    limit = max(STATES_LIMIT, 2 * (sizes[-1] or 0)) if sizes else 0
    kept = kept_states(sizes, limit)
    return [
        stage if keep or size is None else {**stage, "state": None}
        for stage, size, keep in zip(stages, sizes, kept, strict=True)
    ]


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
        if (state := stage.get("state")) is not None and (problem := _problem_of_state(state, seen)) is not None:
            return problem
    return None


def _problem_of_state(state: Json, seen: set[str]) -> str | None:
    """Why this is not what a manifest says of a state, or None."""
    kinds = {"file": str, "sha256": str, "bytes": int}
    if not isinstance(state, dict) or not all(type(state.get(key)) is kind for key, kind in kinds.items()):
        return "a state without file, sha256 and bytes"
    if STATE_FILE.fullmatch(state["file"]) is None or state["file"] in seen:
        return f"a state's file is called '{state['file']}'"
    seen.add(state["file"])
    return None
