"""A store keeps the last state, earlier ones as long as they are small, and what every stage added."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from newcomer.classes.methods.full_fine_tuning import FullFineTuning
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning, StoreError
from newcomer.store import entry as entry_file
from newcomer.store import folder as folder_file
from newcomer.store.entry import Entry, StoredState, kept_states, within_memory
from newcomer.store.folder import Manifest, Store

MANIFEST = Manifest("frozen", {}, {})
SIZE = 1000


@pytest.fixture
def no_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier states are measured by the last one alone."""
    monkeypatch.setattr(folder_file, "STATES_LIMIT", 0)
    monkeypatch.setattr(entry_file, "MEMORY_LIMIT", 0)


def entries(count: int) -> list[Entry]:
    return [
        Entry(f"task {k}", {"added": torch.full((2,), k)}, {}, {"all": torch.full((SIZE,), k)}) for k in range(count)
    ]


def on_disk(store: Store) -> int:
    return sum(file.stat().st_size for file in store.folder.glob("state-*"))


def kept(store: Store) -> list[int]:
    return [k for k, entry in enumerate(store.entries(), 1) if entry.state is not None]


@pytest.mark.usefixtures("no_allowance")
def test_the_size_of_a_store_does_not_grow_with_its_stages(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "store"), entries(40)
    for count in range(1, 41):
        store.write(MANIFEST, made[:count])
        one = (store.folder / f"state-{count - 1:03d}.safetensors").stat().st_size
        assert on_disk(store) <= 3 * one
        assert {count, max(1, count - 1)} <= set(kept(store))  # an interrupted run returns to the second last
        assert [int(entry.tensors["added"][0]) for entry in store.entries()] == list(range(count))
    for count in kept(store):
        state = store.entries(count)[-1].state
        assert state is not None
        assert torch.equal(state["all"], torch.full((SIZE,), count - 1))


@pytest.mark.usefixtures("no_allowance")
def test_a_state_that_is_gone_is_named_with_those_that_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(9))
    there = kept(store)
    gone = next(k for k in range(1, 9) if k not in there)
    listed = ", ".join(map(str, there))
    with pytest.raises(StoreError, match=f"the state after {gone} stages is no longer kept; those after {listed} are"):
        store.entries(gone)
    with pytest.raises(StoreError, match="is no longer kept"):
        store.checkout(gone, tmp_path / "other")
    with pytest.raises(StoreError, match="is no longer kept"):
        store.truncate(gone)
    assert len(store.entries()) == 9
    store.checkout(there[0], tmp_path / "earlier")
    assert len(Store(tmp_path / "earlier").entries()) == there[0]


def test_small_states_are_all_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(9))
    assert kept(store) == list(range(1, 10))


def test_states_that_were_given_up_go_in_order_of_how_close_their_neighbours_are() -> None:
    sizes: list[int | None] = []
    for _ in range(100):
        sizes.append(1)
        keep = kept_states(sizes, 6)
        sizes = [size if k else None for size, k in zip(sizes, keep, strict=True)]
    found = [k for k, size in enumerate(sizes) if size]
    assert len(found) == 7
    assert found[-2:] == [98, 99]
    assert max(b - a for a, b in zip([-1, *found], found, strict=False)) <= 40


def test_saving_and_opening_read_no_earlier_state(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(4))
    for number in range(3):
        (store.folder / f"state-{number:03d}.safetensors").write_bytes(b"not read")
    found = store.entries()
    assert found[-1].state is not None
    assert torch.equal(found[-1].state["all"], torch.full((SIZE,), 3))
    store.write(MANIFEST, [*found, *entries(5)[4:]])
    assert len(store.entries()) == 5
    with pytest.raises(StoreError, match=r"state-001\.safetensors: its bytes are not those that were written"):
        dict(store.entries(2)[-1].state or {})


def test_what_was_opened_from_a_folder_that_is_gone_is_saved_without_earlier_states(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(3))
    found = store.entries()
    assert dict(found[-1].state or {})
    shutil.rmtree(store.folder)
    other = Store(tmp_path / "other")
    other.write(MANIFEST, found)
    assert kept(other) == [3]


def test_another_state_is_another_history(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "store"), entries(2)
    store.write(MANIFEST, made)
    other = Entry(made[1].name, made[1].tensors, made[1].info, {"all": torch.zeros(SIZE)})
    with pytest.raises(StoreError, match="stage 'task 2' there was learned otherwise"):
        store.write(MANIFEST, [made[0], other])


def test_what_a_kill_left_between_manifest_and_removal_goes_with_the_next_stage(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(1))
    (store.folder / "state-007.safetensors").write_bytes(b"left")
    store.write(MANIFEST, entries(2))
    assert {file.name for file in store.folder.glob("state-*")} == {"state-000.safetensors", "state-001.safetensors"}


@pytest.mark.usefixtures("no_allowance")
def test_memory_holds_the_last_state_alone_where_states_are_large(
    tasks: list[Examples], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """Full fine-tuning held a backbone for every task."""
    learner = FullFineTuning(str(tiny("vit")), epochs=1)
    for task in tasks:
        learner.learn(task)
        learner.save(tmp_path / "store")
    assert [entry.state is None for entry in learner.entries] == [True] * (len(tasks) - 1) + [False]
    again = FullFineTuning.load(tmp_path / "store")
    assert torch.equal(again.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))
    before = FullFineTuning.load(tmp_path / "store", stages=len(tasks) - 1)
    assert before.classes == learner.classes[: len(before.classes)]
    assert isinstance(before.entries[-1].state, StoredState)


def test_states_in_files_count_for_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_file, "MEMORY_LIMIT", 0)
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(3))
    found = within_memory([*store.entries(), *entries(5)[3:]])
    assert [entry.state is None for entry in found] == [False, False, False, True, False]
    assert found[3].sha256 == entries(4)[3].sha256


@pytest.mark.parametrize("stages", ["1", 1.5, [1]])
def test_a_number_of_stages_is_whole(tmp_path: Path, stages: Any) -> None:
    """`newcomer.load(folder, stages="1")` was a bare TypeError."""
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(3))
    with pytest.raises(StoreError, match=r"stages = .*; give a whole number"):
        store.entries(stages)


def test_a_copy_needs_no_earlier_state(tmp_path: Path) -> None:
    """`checkout --stages 3` was refused where only the state after the first stage was damaged."""
    store = Store(tmp_path / "store")
    store.write(MANIFEST, entries(4))
    (store.folder / "state-000.safetensors").write_bytes(b"damaged")
    with pytest.warns(
        DataWarning, match=r"state-000.safetensors: its bytes .*; the copy is without this earlier state"
    ):
        store.checkout(3, tmp_path / "other")
    assert kept(Store(tmp_path / "other")) == [2, 3]
    assert torch.equal(Store(tmp_path / "other").entries()[-1].state["all"], torch.full((SIZE,), 2))  # type: ignore[index]
    (store.folder / "state-002.safetensors").write_bytes(b"damaged")
    with pytest.warns(DataWarning), pytest.raises(StoreError, match="state-002"):
        store.checkout(3, tmp_path / "third")
