"""Disks that are full, cannot be written, or cannot do all that a local one can: saved where it can be, else refused early."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from newcomer.errors import StoreError
from newcomer.store import writing
from newcomer.store.entry import Entry
from newcomer.store.folder import Manifest, Store
from newcomer.store.record import RecordWriter, read_record
from shell import Shell

ENTRY = Entry("task 0", {"a": torch.zeros(2)}, {"classes": ["wren"]})
MODEL = Manifest("frozen", {}, {"backbone": {"name": "vit", "fingerprint": "abc"}})


def refusing_folders(number: int) -> Callable[[int], None]:
    real = os.fsync

    def fsync(file: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{file}"):  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        real(file)

    return fsync


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks the kernel what a file is")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR])
def test_a_disk_that_flushes_no_folder_holds_stores_and_records(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's folder on SMB and one on FUSE: a task was trained, and then the save was refused: no store could ever be."""
    monkeypatch.setattr(os, "fsync", refusing_folders(number))
    Store(tmp_path / "store").write(MODEL, [ENTRY])
    assert len(Store(tmp_path / "store").entries()) == 1
    record = RecordWriter(tmp_path / "record.jsonl")
    record.write({"event": "start"})
    record.commit()
    assert len(list(read_record(record.path))) == 1


def test_a_system_that_opens_no_folder_holds_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows: `os.open` of a folder is a PermissionError."""
    real = os.open

    def opened(path: Any, flags: int, *more: int, **others: Any) -> int:
        if Path(path).is_dir() and not flags & getattr(os, "O_TMPFILE", 0):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", opened)
    Store(tmp_path / "store").write(MODEL, [ENTRY])
    assert len(Store(tmp_path / "store").entries()) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_what_truly_cannot_be_written_is_still_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full says so, also by the folder's fsync."""
    monkeypatch.setattr(os, "fsync", refusing_folders(number))
    with pytest.raises(StoreError, match="could not be written"):
        Store(tmp_path / "store").write(MODEL, [ENTRY])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_disk_without_locks_holds_stores(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS without lockd: the lock's file itself is the lock, and is gone afterwards."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    Store(tmp_path / "store").write(MODEL, [ENTRY])
    assert len(Store(tmp_path / "store").entries()) == 1
    Store(tmp_path / "store").truncate(0)


def test_a_full_disk_is_found_before_the_task(shell: Shell, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's disk was full: hours of learning, then no space left for what was learned."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr("newcomer.classes.learner.ClassLearner._fit_stage", lambda *_: pytest.fail("trained"))
    message = shell.fails("learn", "model", "birds/train", "--backbone", str(tiny("vit")))
    assert "model: could not be written (No space left on device); nothing was changed" in message
    assert not (shell.folder / "model").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["run", "birds.toml", "--out", "file/runs"],
        ["compare", "birds.toml", "--seeds", "1", "--out", "file/runs"],
        ["report", "runs", "--out", "file/report.html"],
        ["checkout", "runs/sd-lora/seed-0/store", "--stages", "1", "--out", "file/copy"],
        ["export", "runs/sd-lora/seed-0/store", "file/out", "--to", "peft"],
        ["analyse", "runs/sd-lora/seed-0/store", "--out", "file/findings"],
        ["demo", "--out", "file/demo"],
    ],
    ids=lambda words: words[0],
)
def test_what_cannot_be_written_is_one_line(words: list[str], made: Path, shell: Shell) -> None:
    """Every command that writes, to a place where nothing can lie."""
    (shell.folder / "runs").symlink_to(made)
    (shell.folder / "file").write_text("")
    assert "could not be written" in shell.fails(*words)


@pytest.fixture(scope="module")
def made(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three pictures a class."""
    from newcomer.experiments.recipe import read_recipe
    from newcomer.experiments.run import run_recipe

    folder = tmp_path_factory.mktemp("made")
    text = (
        f'[data]\nname = "digits"\n[stream]\ntasks = 2\nclasses = 4\ntrain_per_class = 3\neval_per_class = 2\n[backbone]\n'
        f'name = "{tiny("vit")}"\n[learner]\nname = "sd-lora"\nrank = 2\nepochs = 1\n'
    )
    (folder / "r.toml").write_text(text)
    for _ in run_recipe(read_recipe(str(folder / "r.toml")), folder / "sd-lora" / "seed-0"):
        pass
    return folder


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to the disk that is always full")
def test_a_full_disk_behind_the_standard_output_is_one_line() -> None:
    """`newcomer recipes > /mnt/full/list` ended in a trace and in a second one while Python ended."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "newcomer", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "No space left on device" in ended.stderr


def test_a_file_is_whole_or_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    writing.write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        writing.write_whole(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_answers_that_could_not_be_written_are_refused_before_they_are_made(shell: Shell) -> None:
    """`score … --out nodir/x.csv` scored everything first; `score x.csv --out x.csv` wrote over its requests."""
    (shell.folder / "r.csv").write_text("item\na\n")
    (shell.folder / "sub.csv").mkdir()
    (shell.folder / "link.csv").symlink_to("r.csv")
    for out, message in (
        ("nodir/x.csv", "nodir/x.csv: cannot be written (no folder nodir)"),
        ("r.csv/x.csv", "r.csv/x.csv: cannot be written (no folder r.csv)"),
        ("sub.csv", "sub.csv: cannot be written (it is a folder)"),
        ("./r.csv", "r.csv: the output would overwrite the input"),
        ("link.csv", "link.csv: the output would overwrite the input"),
    ):
        assert message in shell.fails("score", "no store yet", "r.csv", "--out", out)
