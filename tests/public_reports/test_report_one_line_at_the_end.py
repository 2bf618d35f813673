"""However a command ends, by Ctrl-C, a closed pipe, a full disk or a terminal of another encoding, it is one line or none."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from newcomer.errors import StoreError
from newcomer.experiments.run import run_recipe
from newcomer.export.folder import atomic_folder
from shell import Shell

COMMAND = [sys.executable, "-m", "newcomer"]
SLOW = "import sys, time; print('begun', flush=True); time.sleep(60)"


def started(*words: str, **settings: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **settings
    )


def test_ctrl_c_while_everything_is_imported_is_one_line(tmp_path: Path) -> None:
    """Impatient users press Ctrl-C in the seconds in which torch is imported: a trace of fifty lines, as of many tools."""
    (tmp_path / "polars.py").write_text(SLOW)  # stands for whatever is slow to import
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = started("recipes", env={**os.environ, "PYTHONPATH": path})
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "newcomer: stopped before it began\n")


def test_a_closed_reader_is_no_error() -> None:
    """The user typed `newcomer recipes | head -1` and got a BrokenPipeError with its trace."""
    with started("recipes") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.slow  # one more process: see `test_report_disks`
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_output_that_goes_to_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("newcomer: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", [pytest.param("ascii", marks=pytest.mark.slow), "cp1252"])
def test_a_terminal_of_another_encoding_shows_every_name(encoding: str, shell: Shell) -> None:
    """The user listed names in another script on a console of code page 1252: UnicodeEncodeError; here a row called 鳥."""
    recipe = shell.folder / "birds.toml"
    recipe.write_text(
        'title = "Vögel 鳥"\n' + recipe.read_text() + '[baselines."鳥 \U0001f426".learner]\nname = "frozen"\n', "utf-8"
    )
    script = "from newcomer.cli.program import console, say; from newcomer.experiments.recipe import read_recipe; "
    script += "from newcomer.cli.entry import escape_unencodable; import sys; escape_unencodable(sys.stdout); "
    script += "[say(row.row) for row in read_recipe('birds.toml').rows()]; print(json.dumps(['鳥 \U0001f426'], ensure_ascii=False))"
    done = subprocess.run(
        [sys.executable, "-c", "import json; " + script],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout.decode("ascii").splitlines() == [
        "sd-lora",
        "\\u9ce5 \\ud83d\\udc26",
        '["\\u9ce5 \\ud83d\\udc26"]',
    ]


def test_invalid_arguments_are_one_line_without_escapes(shell: Shell) -> None:
    """A file name with a terminal escape in it, taken for a command by a wrong glob."""
    assert "No such command 'x\\x1b[31m'" in shell.fails("x\x1b[31m")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("words", [["run", "birds.toml"], ["compare", "birds.toml", "--seeds", "1"]])
def test_a_disk_that_is_full_is_found_before_anything_is_learned(
    words: list[str], shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of learning, and then 'No space left on device'."""
    monkeypatch.setattr("newcomer.store.folder.tempfile.TemporaryFile", full)
    monkeypatch.setattr("newcomer.experiments.run.run", lambda *_: pytest.fail("it began to learn"))
    assert "No space left on device" in shell.call(*words, "--out", "out")[2]


def test_a_report_or_an_export_on_a_full_disk_is_one_line_and_leaves_nothing(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`newcomer report --out` on a full disk; an export whose tensors do not fit, which safetensors says in its own words."""
    assert shell.call("run", "birds.toml", "--out", "out")[0] == 0
    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in shell.fails("report", "out", "--out", "page.html")
    monkeypatch.undo()
    monkeypatch.chdir(shell.folder)
    assert "is a folder" in shell.fails("report", "out", "--out", ".")
    from safetensors import SafetensorError

    with pytest.raises(StoreError, match="could not be written"), atomic_folder(tmp_path / "export"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert not [path for path in tmp_path.iterdir() if "export" in path.name]
    with pytest.raises(StoreError, match="is no folder that can be made"), atomic_folder(Path("/")):
        pass


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR])
def test_a_run_is_saved_where_folders_cannot_be_flushed(
    code: int, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model trained on a disk over a network (SMB, FUSE): 'Invalid argument' of os.fsync, after the task."""
    import stat

    from newcomer.experiments.recipe import read_recipe

    real = os.fsync

    def files_only(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, os.strerror(code))
        real(number)

    monkeypatch.setattr(os, "fsync", files_only)
    list(run_recipe(read_recipe("birds.toml"), Path("out")))
    assert Path("out/store/manifest.json").exists()
