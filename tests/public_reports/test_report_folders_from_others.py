"""A folder that somebody else sent: what its manifest says is checked, and nothing outside of it is read, written or removed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.errors import NewcomerError, StoreError
from newcomer.store.entry import Entry
from newcomer.store.folder import Manifest, Store, _digest
from newcomer.store.record import RecordWriter
from newcomer.training.checkpoint import Checkpoint
from shell import Shell


def forge(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody does who knows how checksums are made."""
    path = store / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("sha256")
    change(content)
    path.write_text(json.dumps(content | {"sha256": _digest(content)}), encoding="utf-8")


def small(folder: Path) -> Store:
    store = Store(folder)
    entries = [Entry(f"task {n}", {"a": torch.full((2,), float(n))}, {"classes": ["wren"]}) for n in range(2)]
    store.write(Manifest("frozen", {}, {"backbone": {"name": "vit", "fingerprint": "abc"}}), entries)
    return store


OUTSIDE = [
    "../outside.safetensors",
    "/tmp/outside.safetensors",
    "a/../../outside.safetensors",
    "..",
    "",
    "manifest.json",
]


@pytest.mark.parametrize("name", [*OUTSIDE, "stage-000.safetensors", "stage-٠٠٠.safetensors"])
def test_a_manifest_that_names_a_file_outside_is_refused_and_the_file_stays(name: str, tmp_path: Path) -> None:
    """CVE-2007-4559 and its like: names inside an archive that lead out of it; here the user's file beside the store was read."""
    store, victim = small(tmp_path / "sent"), tmp_path / "outside.safetensors"
    victim.write_bytes((store.folder / "stage-001.safetensors").read_bytes())
    forge(store.folder, lambda content: content["stages"][1].update(file=name))
    for act in (store.entries, store.manifest, lambda: store.truncate(1), lambda: store.checkout(1, tmp_path / "out")):
        with pytest.raises(StoreError, match="a stage's file is called"):
            act()
    assert victim.exists()
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_without_removing_what_its_stores_manifest_names(shell: Shell) -> None:
    """The user sent a run's folder to be continued: `run --out` removed the file that its manifest named."""
    run = ("run", "birds.toml", "--out", "runs")
    assert shell.call(*run)[0] == 0
    folder, victim = shell.folder / "runs" / "sd-lora" / "seed-0", shell.folder / "victim"
    victim.write_text("precious")
    lines = (folder / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "stage")
    (folder / "record.jsonl").write_text("".join(lines[: first + 1]), encoding="utf-8")  # as if cut off
    forge(folder / "store", lambda content: content["stages"][1].update(file="../../../../victim"))
    assert "a stage's file is called" in shell.fails(*run)
    assert victim.read_text() == "precious"


def test_a_run_that_begins_anew_removes_only_what_stores_are_made_of(shell: Shell) -> None:
    """What else lies in the folder called store stays: a user kept notes there, and a folder in it ended in a trace."""
    store = shell.folder / "runs" / "sd-lora" / "seed-0" / "store"
    (store / "notes").mkdir(parents=True)
    (store / "notes.txt").write_text("mine")
    (store / "stage-007.safetensors").write_text("left by a kill")
    assert shell.call("run", "birds.toml", "--out", "runs")[0] == 0
    assert (store / "notes.txt").read_text() == "mine"
    assert not (store / "stage-007.safetensors").exists()


def test_a_store_or_a_checkpoint_that_is_a_link_is_neither_emptied_nor_written(shell: Shell) -> None:
    """A run's folder in which `store` leads to another model of the user's."""
    other = small(shell.folder / "other")
    run = shell.folder / "runs" / "sd-lora" / "seed-0"
    run.mkdir(parents=True)
    (run / "store").symlink_to(other.folder)
    code, _, err = shell.call("run", "birds.toml", "--out", "runs")
    assert (code, "is a symbolic link" in err) == (2, True)
    (run / "store").unlink()
    (run / "checkpoint").symlink_to(other.folder)
    code, _, err = shell.call("run", "birds.toml", "--out", "runs")
    assert (code, "is a symbolic link" in err) == (2, True)
    assert len(other.entries()) == 2


@pytest.mark.parametrize("file", ["manifest.json.part", "stage-002.safetensors.part"])
def test_a_planted_link_is_not_written_through(file: str, tmp_path: Path) -> None:
    """CWE-59, a link at a predictable temporary name: the next save overwrote what it led to."""
    store, victim = small(tmp_path / "sent"), tmp_path / "victim"
    victim.write_text("precious")
    (store.folder / file).symlink_to(victim)
    store.write(store.manifest(), [*store.entries(), Entry("task 2", {"a": torch.zeros(1)})])
    assert victim.read_text() == "precious"
    assert len(store.entries()) == 3
    assert not list(store.folder.glob("*.part"))


def test_planted_links_beside_records_checkpoints_and_pages_are_not_written_through(
    tmp_path: Path, shell: Shell
) -> None:
    """The same in the other files that appear whole or not at all."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "record.jsonl.part").symlink_to(victim)
    record = RecordWriter(tmp_path / "record.jsonl")
    record.write({"event": "start"})
    record.commit()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "adam.safetensors.part").symlink_to(victim)
    Checkpoint(tmp_path / "checkpoint").keep("adam", 1, {"layer": torch.nn.Linear(2, 2)}, now=True)
    for name in ("report.html.part", "report.html"):
        (shell.folder / name).symlink_to(victim)
    assert shell.call("run", "birds.toml", "--out", "runs")[0] == 0
    assert shell.call("report", "runs")[0] == 0
    assert victim.read_text() == "precious"


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A link at `.lock`: older versions of the lock's library emptied what it led to."""
    store, victim = small(tmp_path / "sent"), tmp_path / "victim"
    victim.write_text("precious")
    (store.folder / ".lock").unlink(missing_ok=True)
    (store.folder / ".lock").symlink_to(victim)
    with pytest.raises(StoreError, match="its lock is a link"):
        store.truncate(1)
    assert victim.read_text() == "precious"


DEEP = json.loads("[" * 400 + "]" * 400)
WRONG: list[Callable[[dict[str, Any]], object]] = [
    lambda m: m.update(stages=["stage-000.safetensors"]),
    lambda m: m.update(stages={}),
    lambda m: m.update(stages=[None]),
    lambda m: m.update(stages=None),
    lambda m: m["stages"][0].pop("sha256"),
    lambda m: m["stages"][0].update(sha256=3),
    lambda m: m["stages"][0].update(name=["task"]),
    lambda m: m.update(learner=["sd-lora"]),
    lambda m: m.update(learner={}),
    lambda m: m.update(learner="../sd-lora"),
    lambda m: m.update(settings=["rank"]),
    lambda m: m.update(settings={"rank": "many"}),
    lambda m: m.update(settings={"rank": DEEP}),
    lambda m: m.update(settings={"os.system": "ls"}),
    lambda m: m["settings"].update(head=[]),
    lambda m: m.update(depends_on={}),
    lambda m: m.update(depends_on=[]),
    lambda m: m.update(depends_on={"backbone": "vit"}),
    lambda m: m.update(depends_on={"backbone": {"name": 3, "fingerprint": []}}),
    lambda m: m["depends_on"]["backbone"].update(surprise=1),
    lambda m: m.update(format=True),
    lambda m: m.update(format="2"),
    lambda m: m.update(format=2.5),
    lambda m: m.update(more=1),
    lambda m: m.pop("learner"),
]


@pytest.fixture(scope="module")
def learned(tiny: Callable[[str], Path], tasks: list[Examples], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "store"
    SDLoRA(str(tiny("vit")), rank=2, epochs=1, batch_size=4).learn(tasks[0]).save(folder)
    return folder


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_no_manifest_ends_in_a_trace(number: int, learned: Path, shell: Shell) -> None:
    """A manifest of other types than ours, its checksum right: a TypeError or an AttributeError of Python's."""
    import shutil

    store = shell.folder / "sent"
    shutil.copytree(learned, store)
    forge(store, WRONG[number])
    for words in (
        ["predict", "sent", "birds/test/tit/0.png"],
        ["inspect", "sent"],
        ["checkout", "sent", "--stages", "1"],
    ):
        code, _, err = shell.call(*words, *(["--out", "copy"] if words[0] == "checkout" else []))
        assert code in (0, 2), err
        assert err.count("\n") == (code != 0), err
    assert shell.fails("predict", "sent", "birds/test/tit/0.png")


@pytest.mark.parametrize(
    "info", [[], "text", {"classes": 3}, {"classes": [1, 2]}, {"classes": ["a"], "held-out accuracy": "much"}, {}]
)
def test_no_stage_ends_in_a_trace(info: Any, learned: Path, shell: Shell) -> None:
    """Metadata of other types than ours, the checksum right."""
    import hashlib
    import shutil

    from safetensors.torch import load_file

    store = shell.folder / "sent"
    shutil.copytree(learned, store)
    content = save(load_file(store / "stage-000.safetensors"), {"info": json.dumps(info)})
    (store / "stage-000.safetensors").write_bytes(content)
    forge(store, lambda m: m["stages"][0].update(sha256=hashlib.sha256(content).hexdigest()))
    for words in (["predict", "sent", "birds/test/tit/0.png"], ["inspect", "sent"], ["inspect", "sent", "--json"]):
        code, _, err = shell.call(*words)
        assert code in (0, 2), err
        assert err.count("\n") == (code != 0), err


def test_what_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    """A manifest and a record of a hundred thousand brackets: RecursionError."""
    from newcomer.store.record import read_record

    (tmp_path / "manifest.json").write_text("[" * 100_000)
    (tmp_path / "record.jsonl").write_text('{"event":' * 100_000 + "\n")
    with pytest.raises(NewcomerError):
        Store(tmp_path).manifest()
    with pytest.raises(NewcomerError):
        list(read_record(tmp_path / "record.jsonl"))
