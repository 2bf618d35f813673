"""User errors on the command line: one line on stderr, exit code 2, and nothing half-written."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from shell import Shell


def test_the_recipe_itself_works(shell: Shell) -> None:
    code, out, err = shell.call("run", "birds.toml", "--out", "runs")
    assert (code, err) == (0, "")
    assert "Acc" in out
    assert "runs/sd-lora/seed-0/record.jsonl" in shell.files()
    code, out, err = shell.call("inspect", "runs/sd-lora/seed-0/store")
    assert (code, err) == (0, "")
    assert all(part in out for part in ("sd-lora, format 4", "rank=2", "task 1", "task 2"))
    code, out, err = shell.call("report", "runs", "--out", "pages/report.html")
    assert (code, err) == (0, "")
    assert "<svg" in (shell.folder / "pages" / "report.html").read_text(encoding="utf-8")
    assert shell.call("recipes")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learner.rnak=4"], "learner.rnak is not a setting of sd-lora; did you mean 'rank'?"),
        (["learner.name=sd-laro"], "learner.name = 'sd-laro' is not a learner; did you mean 'sd-lora'?"),
        (["stream.tsks=4"], "did you mean 'tasks'?"),
        (["stream.tasks=9"], "9 tasks of 4 classes would leave a task empty; give at most 4 tasks"),
        (['stream.tasks=[["wren","tit"],["tit","finch","robin"]]'], "class 'tit' occurs 2 times in stream.tasks"),
        (['stream.tasks=[["wren","tit"],[],["finch","robin"]]'], "stream.tasks: task 2 is empty"),
        (['stream.tasks=[["wren","tit"],["finch"]]'], "test class 'robin' is in no task"),
        (['stream.tasks=[["wren","dodo"]]'], "class 'dodo', which has no training examples"),
        (["backbone.name=nobody/no-such-model"], "backbone 'nobody/no-such-model' cannot be loaded"),
        (["learner.device=warp"], "device 'warp' cannot be used"),
        (["learner.learning_rate=1e30", "learner.epochs=5"], "the loss became nan; lower the learning rate"),
        (["data.path=nowhere"], "not found at nowhere, data/nowhere; lay the images out as nowhere/train/<class>/*"),
        (["data.name=cifar100"], "https://www.cs.toronto.edu"),
        (["data.name=banking77"], "into data/banking77/"),
        (["data.name=movielens-1m"], "data.name = 'movielens-1m' is not a data source for classes"),
    ],
)
def test_settings_that_cannot_be(words: list[str], message: str, shell: Shell) -> None:
    assert message in shell.fails(
        "run", "birds.toml", "--out", "runs", *(part for word in words for part in ("--set", word))
    )
    assert not (shell.folder / "runs").exists()


def test_recipes_and_baselines_that_are_not_there(shell: Shell) -> None:
    assert "did you mean 'digits'?" in shell.fails("run", "digit")
    assert "no baseline" in shell.fails("run", "birds.toml", "--baseline", "joint")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda birds: (birds / "train" / "dodo").mkdir(), "birds/train/dodo: a class without images"),
        (
            lambda birds: (birds / "train" / "wren" / "9.png").write_text("no"),
            "birds/train/wren/9.png: not a readable image",
        ),
        (lambda birds: _cut(birds / "train" / "wren" / "1.png"), "birds/train/wren/1.png: a damaged image"),
        (lambda birds: _cut(birds / "test" / "tit" / "1.png"), "birds/test/tit/1.png: a damaged image"),
        (
            lambda birds: (birds / "train" / "tit").rename(birds / "train" / "titmouse"),
            "test class 'tit' has no training",
        ),
        (lambda birds: (birds / "test" / "tit").rename(birds / "tit"), "class 'tit' has no test examples"),
        (lambda birds: (birds / "train").rename(birds / "learn"), "birds/train: no such folder; lay the images out"),
    ],
)
def test_pictures_that_cannot_be(spoil: Callable[[Path], object], message: str, shell: Shell) -> None:
    spoil(shell.folder / "birds")
    assert message in shell.fails("run", "birds.toml", "--out", "runs", "--set", "stream.tasks=1")
    assert not (shell.folder / "runs").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:70])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\nwhere,a\nl\xe4ge,b\n", "train.csv: line 3 is not UTF-8; save the file as UTF-8"),
        (b"question,label\nwhere,a\n", "train.csv: no column 'text'; there are label, question"),
        (b"text,label\nwhere,\n", "train.csv: row 1 is empty in column 'label'"),
        (b"", "train.csv: is empty"),
    ],
)
def test_texts_that_cannot_be(content: bytes, message: str, shell: Shell, tiny: Callable[[str], Path]) -> None:
    (shell.folder / "train.csv").write_bytes(content)
    words = ("data.name=text-table", "data.train=train.csv", "data.test=train.csv", f"backbone.name={tiny('bert')}")
    assert message in shell.fails("run", "birds.toml", *(part for word in words for part in ("--set", word)))


def test_texts_for_a_backbone_of_pictures(shell: Shell) -> None:
    (shell.folder / "train.csv").write_text("text,label\nwhere,a\nwhat,b\n")
    words = ("data.name=text-table", "data.train=train.csv", "data.test=train.csv")
    message = shell.fails("run", "birds.toml", *(part for word in words for part in ("--set", word)))
    assert "reads images, but was given a str" in message


@pytest.fixture
def run_half(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one stage done, and the folder of its store."""
    real, calls = Image.open, iter(range(1000))

    def closing(*words: object, **more: object) -> object:
        if next(calls) == 24 + 6 + 6 + 3:  # headers, the first task, its evaluation, and into the second task
            raise KeyboardInterrupt
        return real(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", closing)
    code, _, err = shell.call("run", "birds.toml", "--out", "runs")
    monkeypatch.setattr(Image, "open", real)
    assert code == 130
    assert err == "newcomer: stopped; the same command goes on after the last complete stage\n"
    return shell.folder / "runs" / "sd-lora" / "seed-0" / "store"


def test_a_run_that_was_stopped_goes_on(run_half: Path, shell: Shell) -> None:
    assert (run_half / "stage-000.safetensors").exists()
    assert not (run_half / "stage-001.safetensors").exists()
    code, _, err = shell.call("run", "birds.toml", "--out", "runs")
    assert (code, err) == (0, "")
    assert (run_half / "stage-001.safetensors").exists()


def test_other_settings_in_the_same_folder(run_half: Path, shell: Shell) -> None:
    message = shell.fails("run", "birds.toml", "--out", "runs", "--set", "learner.rank=3")
    assert (
        "holds a run of other settings (learner.rank = 2 there, 3 here); choose another --out or remove it" in message
    )


def test_a_run_or_store_in_use(run_half: Path, shell: Shell) -> None:
    with FileLock(run_half.parent / ".lock"):
        assert "another process is working on this run" in shell.fails("run", "birds.toml", "--out", "runs")
    with FileLock(run_half / ".lock"):
        assert "another process is writing this store" in shell.fails("run", "birds.toml", "--out", "runs")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda store: _replace(store / "manifest.json", b'"format": 4', b'"format": 5'),
            "format 5, this newcomer reads up to 4",
        ),
        (lambda store: _replace(store / "manifest.json", b'"rank": 2', b'"rank": 3'), "checksum"),
        (
            lambda store: _replace(store / "stage-000.safetensors", b"magnitudes", b"magnitudez"),
            "stage-000.safetensors: its bytes are not",
        ),
        (lambda store: (store / "stage-000.safetensors").unlink(), "stage-000.safetensors: cannot be read"),
        (lambda store: (store / "manifest.json").unlink(), "no store here"),
    ],
)
def test_stores_that_cannot_be(spoil: Callable[[Path], object], message: str, run_half: Path, shell: Shell) -> None:
    spoil(run_half)
    assert message in shell.fails("inspect", str(run_half.relative_to(shell.folder)))
    assert message in shell.fails("run", "birds.toml", "--out", "runs")


def _replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_reports_of_nothing(shell: Shell) -> None:
    (shell.folder / "empty").mkdir()
    assert "empty: no record of a run here" in shell.fails("report", "empty")
    assert "nowhere: no record of a run here" in shell.fails("report", "nowhere")


def test_places_that_cannot_be_written(run_half: Path, shell: Shell) -> None:
    (shell.folder / "file").write_text("")
    assert "could not be written" in shell.fails("report", "runs", "--out", "file/report.html")
    assert "could not be written" in shell.fails("run", "birds.toml", "--out", "file/runs")


def test_the_installed_command_does_the_same(shell: Shell) -> None:
    command = [sys.executable, "-m", "newcomer.cli"] if not _installed().exists() else [str(_installed())]
    ended = subprocess.run([*command, "run", "digit"], capture_output=True, text=True, check=False, cwd=shell.folder)
    assert ended.returncode == 2
    assert ended.stderr == "newcomer: no recipe 'digit'; did you mean 'digits'? or give a .toml file\n"
    assert ended.stdout == ""


def _installed() -> Path:
    return Path(sys.executable).with_name("newcomer")
