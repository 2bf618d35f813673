"""Stores: complete up to the last stage at every moment, errors name what is wrong, and nothing saved is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.errors import StoreError
from newcomer.store.entry import Entry
from newcomer.store.folder import FORMAT, Manifest, Store

MANIFEST = Manifest(
    "sd-lora", {"rank": 2, "rate": 1e-3}, {"backbone": {"name": "vit", "fingerprint": "abc", "size": None}}
)


def entry(number: int) -> Entry:
    draw = torch.Generator().manual_seed(number)
    tensors = {"up": torch.randn(3, 2, generator=draw), "count": torch.tensor([number]), "none": torch.zeros(0, 4)}
    return Entry(f"task {number}", tensors, {"classes": [f"größer\u2028{number}"]})


def content(folder: Path) -> dict[str, bytes]:
    """All files but the lock, whose presence means nothing."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.write(MANIFEST, [entry(0), entry(1)])
    return found


def test_written_and_read_back_is_bit_identical(store: Store) -> None:
    for number, found in enumerate(store.entries()):
        wanted = entry(number)
        assert (found.name, found.info) == (wanted.name, wanted.info)
        assert found.tensors.keys() == wanted.tensors.keys()
        assert all(torch.equal(found.tensors[key], wanted.tensors[key]) for key in wanted.tensors)
        assert found.tensors["count"].dtype == torch.int64
    assert store.manifest().learner == "sd-lora"
    assert store.manifest().settings == MANIFEST.settings
    assert [stage["name"] for stage in store.manifest().stages] == ["task 0", "task 1"]


def test_writing_again_appends_and_touches_no_file_of_an_earlier_stage(store: Store) -> None:
    before = content(store.folder)
    times = {path.name: path.stat().st_mtime_ns for path in store.folder.glob("stage-*")}
    store.write(MANIFEST, [entry(0), entry(1), entry(2)])
    after = content(store.folder)
    assert after.keys() - before.keys() == {"stage-002.safetensors"}
    assert all(after[name] == before[name] for name in times)
    assert all((store.folder / name).stat().st_mtime_ns == time for name, time in times.items())
    assert len(store.entries()) == 3
    assert [found.name for found in store.entries(1)] == ["task 0"]


def test_writing_the_same_again_changes_nothing(store: Store) -> None:
    before = content(store.folder)
    store.write(MANIFEST, [entry(0), entry(1)])
    assert content(store.folder) == before


@pytest.mark.parametrize(
    ("manifest", "entries", "message"),
    [
        (Manifest("frozen", MANIFEST.settings, MANIFEST.depends_on), [0, 1], "holds another model"),
        (Manifest("sd-lora", MANIFEST.settings, {"backbone": {"fingerprint": "other"}}), [0, 1], "holds another model"),
        (MANIFEST, [0], "holds 2 stages, this model only 1"),
        (MANIFEST, [0, 5, 6], "stage 'task 6' there was learned otherwise"),
    ],
)
def test_another_model_or_history_is_refused_and_nothing_is_changed(
    manifest: Manifest, entries: list[int], message: str, store: Store
) -> None:
    before = content(store.folder)
    with pytest.raises(StoreError, match=message):
        store.write(manifest, [entry(number) for number in entries])
    assert content(store.folder) == before


def test_settings_may_change_from_stage_to_stage(store: Store) -> None:
    store.write(Manifest("sd-lora", {"rank": 3}, MANIFEST.depends_on), [entry(0), entry(1), entry(2)])
    assert store.manifest().settings == {"rank": 3}
    assert len(store.entries()) == 3


def test_an_earlier_state_can_be_checked_out(store: Store, tmp_path: Path) -> None:
    before = content(store.folder)
    store.checkout(1, tmp_path / "earlier")
    found = Store(tmp_path / "earlier")
    assert [e.name for e in found.entries()] == ["task 0"]
    assert found.manifest().settings == MANIFEST.settings
    found.write(MANIFEST, [entry(0), entry(7)])  # and goes a way of its own
    assert content(store.folder) == before
    with pytest.raises(StoreError, match="earlier: holds a store already; choose another folder"):
        store.checkout(1, tmp_path / "earlier")
    for count in (-1, 3):
        with pytest.raises(StoreError, match=f"holds 2 stages, not {count}; give a number from 0 to that"):
            store.checkout(count, tmp_path / "other")
        with pytest.raises(StoreError, match=f"holds 2 stages, not {count}; give a number from 0 to that"):
            store.entries(count)
    assert not (tmp_path / "other").exists()


def test_a_disk_that_fails_on_closing_loses_no_stage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new manifest is in its place, and then the folder cannot be synced: what the manifest names is still there."""
    real, calls = os.fsync, iter(range(100))

    def failing(number: int) -> None:
        if next(calls) == 3:  # the stage's file and folder, the manifest's file, and now its folder
            raise KeyboardInterrupt
        real(number)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(KeyboardInterrupt):
        store.write(MANIFEST, [entry(0), entry(1), entry(2)])
    monkeypatch.setattr(os, "fsync", real)
    assert [e.name for e in store.entries()] == ["task 0", "task 1", "task 2"]
    store.write(MANIFEST, [entry(0), entry(1), entry(2)])
    assert len(store.entries()) == 3


def test_holding_makes_no_folders_that_stay(tmp_path: Path) -> None:
    with Store(tmp_path / "a" / "b").held():
        assert (tmp_path / "a" / "b").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_held_is_written_by_its_holder_alone(store: Store) -> None:
    with store.held():
        store.write(MANIFEST, [entry(0), entry(1), entry(2)])
        code = f"from newcomer.store.folder import Store; Store({str(store.folder)!r}).truncate(1)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process is writing this store" in other.stderr
    assert len(store.entries()) == 3
    store.truncate(1)


def test_holding_a_store_that_never_comes_to_be_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Store(tmp_path / "new").held():
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


def test_what_fails_while_a_store_is_held_takes_nothing_of_what_was_saved(store: Store) -> None:
    def fail() -> None:
        with store.held():
            store.write(MANIFEST, [entry(0), entry(1), entry(2)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(store.entries()) == 3


def test_what_has_a_fingerprint_may_lie_elsewhere(store: Store) -> None:
    moved = {"backbone": {"name": "/models/vit", "fingerprint": "abc", "size": None}}
    store.write(Manifest("sd-lora", MANIFEST.settings, moved), [entry(0), entry(1), entry(2)])
    assert store.manifest().depends_on == moved
    with pytest.raises(StoreError, match="holds another model"):
        store.write(Manifest("sd-lora", MANIFEST.settings, {"backbone": moved["backbone"] | {"size": 8}}), [entry(0)])


def test_truncating_forgets_the_last_stages(store: Store) -> None:
    store.truncate(1)
    assert [found.name for found in store.entries()] == ["task 0"]
    assert content(store.folder).keys() == {"manifest.json", "stage-000.safetensors"}
    store.write(MANIFEST, [entry(0), entry(7)])
    assert [found.name for found in store.entries()] == ["task 0", "task 7"]
    with pytest.raises(StoreError, match="holds 2 stages, not 3"):
        store.truncate(3)


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere: no store here \(no manifest.json\)"):
        Store(tmp_path / "nowhere").manifest()
    with pytest.raises(StoreError, match="no store here"):
        Store(tmp_path / "nowhere").truncate(0)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_a_newer_format_says_so(store: Store) -> None:
    path = store.folder / "manifest.json"
    path.write_text(json.dumps({"format": FORMAT + 1, "something": "new"}))
    with pytest.raises(StoreError, match=f"format {FORMAT + 1}, this newcomer reads up to {FORMAT}; update newcomer"):
        store.entries()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"a"', "{}", '{"format": null}', '{"format": 1}', "\xff"])
def test_what_is_no_manifest_is_one_line(text: str, store: Store) -> None:
    (store.folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError) as caught:
        store.entries()
    assert "\n" not in str(caught.value)


def test_a_store_without_its_manifest_keeps_its_files(store: Store) -> None:
    (store.folder / "manifest.json").unlink()
    before = content(store.folder)
    with pytest.raises(StoreError, match="no store here"):
        store.truncate(1)
    assert content(store.folder) == before


def test_a_missing_file_is_named(store: Store) -> None:
    (store.folder / "stage-001.safetensors").unlink()
    with pytest.raises(StoreError, match=r"stage-001\.safetensors: cannot be read"):
        store.entries()
    assert len(store.entries(1)) == 1


@pytest.mark.parametrize("name", ["manifest.json", "stage-000.safetensors"])
def test_every_changed_byte_is_noticed(name: str, tmp_path: Path) -> None:
    found = Store(tmp_path / "store")
    found.write(MANIFEST, [entry(0)])
    whole = (found.folder / name).read_bytes()

    @given(place=st.integers(0, len(whole) - 1), flip=st.integers(1, 255))
    @settings(max_examples=150, deadline=None)
    def changed(place: int, flip: int) -> None:
        bytes_ = bytearray(whole)
        bytes_[place] ^= flip
        (found.folder / name).write_bytes(bytes_)
        try:
            read = found.manifest(), found.entries()
        except StoreError:
            return
        assert json.loads(bytes_) == json.loads(whole)  # only the manifest's white space means nothing
        assert torch.equal(read[1][0].tensors["up"], entry(0).tensors["up"])

    changed()


def test_a_stage_cut_short_is_noticed(store: Store) -> None:
    path = store.folder / "stage-001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"checksum"):
        store.entries()


@pytest.fixture
def other_process(store: Store) -> Iterator[None]:
    """Another process that is at work in the store."""
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print('held', flush=True), sys.stdin.read()"
    command = [sys.executable, "-c", code, str(store.folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate()


@pytest.mark.usefixtures("other_process")
def test_a_store_that_another_process_writes_is_left_alone(store: Store) -> None:
    before = content(store.folder)
    acts: list[Callable[[], None]] = [
        lambda: store.write(MANIFEST, [entry(0), entry(1), entry(2)]),
        lambda: store.truncate(1),
    ]
    for act in acts:
        with pytest.raises(StoreError, match="another process is writing this store"):
            act()
    assert content(store.folder) == before
    assert len(store.entries()) == 2  # reading is free


def test_the_lock_is_given_back(store: Store) -> None:
    with FileLock(store.folder / ".lock", timeout=0):
        pass
    with pytest.raises(StoreError):
        store.write(MANIFEST, [entry(9)])
    with FileLock(store.folder / ".lock", timeout=0):
        pass


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("nth", [0, 1, 2, 3])
def test_a_full_disk_leaves_the_store_as_it_was(nth: int, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real, calls = content(store.folder), os.fsync, iter(range(100))
    monkeypatch.setattr(os, "fsync", lambda file: full() if next(calls) == nth else real(file))
    with pytest.raises(StoreError, match=r"could not be written \(No space left on device\); nothing was changed"):
        store.write(MANIFEST, [entry(0), entry(1), entry(2), entry(3)])
    after = content(store.folder)
    monkeypatch.undo()
    assert after == before
    store.write(MANIFEST, [entry(0), entry(1), entry(2)])
    assert len(store.entries()) == 3


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_full_disk_leaves_no_new_folder(nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, iter(range(100))
    monkeypatch.setattr(os, "fsync", lambda file: full() if next(calls) == nth else real(file))
    with pytest.raises(StoreError, match="No space left"):
        Store(tmp_path / "store").write(MANIFEST, [entry(0)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        Store(tmp_path / "file" / "store").write(MANIFEST, [entry(0)])


KILLED = """
import os, sys
from newcomer.store import folder
sys.path.insert(0, sys.argv[3])
from test_store import MANIFEST, entry
real, calls = folder.Path.replace, iter(range(100))
def dying(self, target):
    if next(calls) == int(sys.argv[2]):
        os._exit(9)
    return real(self, target)
folder.Path.replace = dying
folder.Store(sys.argv[1]).write(MANIFEST, [entry(n) for n in range(4)])
"""


@pytest.mark.parametrize("moment", [0, 2])
def test_a_kill_in_the_middle_of_a_save_leaves_the_last_complete_stage(moment: int, store: Store) -> None:
    """Killed before the first new file is in place, and between the files and the manifest that would name them."""
    before = store.manifest()
    command = [sys.executable, "-c", KILLED, str(store.folder), str(moment), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == 9
    assert store.manifest() == before
    assert len(store.entries()) == 2
    store.write(MANIFEST, [entry(0), entry(1), entry(2)])  # and it goes on from there
    assert len(store.entries()) == 3
    assert not list(store.folder.glob("*.part"))


def test_a_copied_store_is_a_store(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.folder, tmp_path / "copy")
    assert len(Store(tmp_path / "copy").entries()) == 2


def test_older_formats_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(Manifest("sd-lora", {}, {}), [])
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT - 1}'))
    with pytest.raises(StoreError, match=f"format {FORMAT - 1} is older than the first release; train the model again"):
        store.manifest()
