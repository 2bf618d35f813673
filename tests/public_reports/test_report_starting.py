"""However a command is begun or ended, it says one line at most: Ctrl-C, a closed pipe, a terminal of another time, wrong words."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from newcomer.cli import entry, program
from newcomer.cli.entry import escape_unencodable
from shell import Shell

COMMAND = [sys.executable, "-m", "newcomer"]


def start_command(*words: str, **settings: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **settings}
    return subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


SLOW = """
import sys, time
from importlib.abc import MetaPathFinder
class Slow(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
sys.argv = ["newcomer", "learn"]
from newcomer.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_while_starting_is_one_line() -> None:
    """A user pressed Ctrl-C during the first seconds, while libraries are imported: a trace of theirs."""
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"importing\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"newcomer: stopped before it began\n")


def test_ctrl_c_in_a_command_without_a_handler_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a report was drawn, in a command that goes on nowhere."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("newcomer.cli.runs.find_runs", stopped)
    assert shell.call("report", "runs") == (130, "", "newcomer: stopped\n")


def test_the_version_is_printed(shell: Shell) -> None:
    assert shell.call("--version") == (0, f"{version('newcomer')}\n", "")


@pytest.mark.slow  # one more process: see `test_report_one_line_at_the_end`
@pytest.mark.skipif(sys.platform == "win32", reason="as shells of Unix do it")
def test_a_closed_pipe_is_no_trace() -> None:
    """A user read the first line only: `newcomer recipes | head -1` ended in BrokenPipeError."""
    process = start_command("recipes")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (program.CLOSED, b"")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
        pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_every_script_on_every_terminal(settings: dict[str, str], tmp_path: Path) -> None:
    """Windows' cp1252 and `LANG=C`: a class name in Chinese ended in UnicodeEncodeError."""
    (tmp_path / "鸟.csv").write_text(
        "item,user,label,time,名\n" + "".join(f"{n},{n},{n % 2},{n},字{n % 3}\n" for n in range(40)),
        encoding="utf-8",
    )
    for words in (
        ["inspect", str(tmp_path / "鸟.csv")],
        ["inspect", str(tmp_path / "鸟.csv"), "--json"],
        ["report", "鸟"],
    ):
        process = start_command(*words, **settings)
        out, err = process.communicate(timeout=120)
        assert process.returncode in (0, 2), err
        assert b"Traceback" not in err
        if "--json" in words and process.returncode == 0:
            assert "名" in json.dumps(json.loads(out.decode("cp1252")), ensure_ascii=False)


def test_what_an_encoding_lacks_is_what_json_escapes() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    escape_unencodable(stream)
    said = ["größer", "卡", "🐦", "\udcff"]
    stream.write(json.dumps(said, ensure_ascii=False))
    stream.flush()
    assert json.loads(stream.buffer.getvalue()) == said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict"], "Missing argument"),
        (["lern"], "No such command 'lern'"),
        (["run", "digits", "--sed", "3"], "No such option: --sed"),
        (["run", "digits", "--seed", "three"], "Invalid value for '--seed'"),
        (["predict", "store", "x", "--top", "0"], "Invalid value for '--top'"),
        (["run", "digits", "--\x1b[31m[/b]"], r"--\x1b[31m[/b]"),
    ],
)
def test_wrong_arguments_are_one_line(words: list[str], message: str, shell: Shell) -> None:
    """A usage block of four lines, with whatever the words held written to the terminal as it was."""
    err = shell.fails(*words)
    assert message in err
    assert "--help`" in err


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "/mnt/x"), MemoryError(), EOFError()])
def test_missing_resources_are_one_line(error: BaseException, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was pulled out, a machine without memory, an input that ended."""

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr("newcomer.cli.runs.find_runs", failing)
    code, _, err = shell.call("report", "runs")
    assert (code, err.strip().count("\n")) == (2, 0)
    assert "Traceback" not in err


def test_the_entry_still_names_the_program() -> None:
    assert entry.app is program.app
