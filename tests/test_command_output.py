"""What commands print for people: help, mistaken settings by their own name, settings that change, progress, where logs are."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from newcomer.cli import program, simulate
from newcomer.cli.commands import COMMANDS
from newcomer.printable import stage_title
from newcomer.simulation import world
from newcomer.simulation.world import World
from newcomer.store.folder import Store
from shell import Shell

LOG = ["item,user,click,time,genre", *(f"i{n % 6},u{n % 9},{n // 2 % 2},{n},g{n % 6 % 2}" for n in range(240))]
QUICK = [word for change in ("pretrain_epochs=1", "meta_epochs=1") for word in ("--set", change)]


@pytest.fixture
def birds(shell: Shell, tiny: Callable[[str], Path]) -> Shell:
    """A folder with a classifier `m` of four classes."""
    learned = shell.call("learn", "m", "birds/train", "--backbone", str(tiny("vit")), "--learner", "frozen")
    assert (learned[0], learned[2]) == (0, "")
    return shell


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_no_python_type(command: str, shell: Shell) -> None:
    code, out, _ = shell.call(command, "--help")
    assert code == 0
    assert not re.search(r"<\w|list\[|Path\b", out)
    assert all(re.match(r" +--[\w-]+( [A-Z=]+)?(  |$)", line) for line in out.splitlines() if line.startswith("  --"))


def test_help_of_score_explains_the_phases(shell: Shell) -> None:
    out = shell.call("score", "--help")[1]
    assert all(phase in out for phase in ("cold", "warm", "sufficient", "warm-a", "warm-b", "warm-c"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["learn", "new", "birds/train", "--backbone", "tiny", "--set", "epoch=3"],
            "epoch is not a setting of sd-lora",
        ),
        (["learn", "new", "birds/train", "--backbone", "tiny", "--set", "epochs=x"], "epochs = 'x' cannot be"),
        (["learn", "m", "birds/test", "--set", "epoch=3"], "epoch is not a setting of FrozenBackbone"),
        (["train", "shop", "log.csv", "--set", "meta_epoch=3"], "meta_epoch is not a setting of emerg"),
        (["train", "shop", "log.csv", "--schema", "file.toml"], "learner.meta_epoch is not a setting of emerg"),
    ],
)
def test_a_mistaken_setting_is_named_as_it_was_written(words: list[str], message: str, birds: Shell) -> None:
    (birds.folder / "log.csv").write_text("\n".join(LOG) + "\n")
    (birds.folder / "file.toml").write_text("[learner]\nmeta_epoch = 3\n")
    assert birds.fails(*words).startswith(f"newcomer: {message}")


def test_settings_of_a_model_that_change_are_named(shell: Shell, tiny: Callable[[str], Path]) -> None:
    shell.call("learn", "m", "birds/train", "--backbone", str(tiny("vit")), "--set", "epochs=1")
    code, out, _ = shell.call("learn", "m", "birds/test", "--head", "ridge", "--set", "epochs=1", "--set", "rank=3")
    assert code == 0
    assert "m: settings change from now on: rank = 3 (was 10), head = ridge (was auto)\n" in out
    assert Store(shell.folder / "m").manifest().settings["head"] == "ridge"
    assert "settings change" not in shell.call("learn", "m", "birds/test", "--head", "ridge")[1]


def test_what_has_no_steps_leaves_no_progress_bar(shell: Shell) -> None:
    (shell.folder / "log.csv").write_text("\n".join(LOG) + "\n")
    trained = shell.call("train", "shop", "log.csv", *QUICK)
    assert (trained[0], trained[2]) == (0, "")
    assert "shop · saved" in trained[1]
    code, out, err = shell.call("analyse", "shop")
    assert (code, out.strip(), err) == (0, "findings/index.html: analysis of shop", "")


def test_learn_says_where_its_logs_are(birds: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def init(project: str, name: str, config: object) -> SimpleNamespace:
        names.append(name)
        return SimpleNamespace(log=lambda metrics, step: None, finish=lambda: None)

    library: Any = ModuleType("trackio")
    library.init = init
    monkeypatch.setitem(sys.modules, "trackio", library)
    out = birds.call("learn", "m", "birds/test", "--track", "trackio")[1]
    assert out.splitlines()[-1] == "logs: project newcomer; `trackio show` shows them"
    assert names == ["m/task-2"]
    assert "logs:" not in birds.call("learn", "m", "birds/test")[1]


def test_tasks_count_from_one_where_people_read() -> None:
    assert [stage_title(name) for name in ("task 0", "task 9, before", "task 0 to task 1", "all tasks", "cold")] == [
        "task 1",
        "task 10, before",
        "task 1 to task 2",
        "all tasks",
        "cold",
    ]
    assert stage_title("forget task 3") == "forget task 3"  # a class


def test_without_a_terminal_training_says_where_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` into a file printed its settings, and nothing until the end."""
    (shell.folder / "log.csv").write_text("\n".join(LOG))
    quick = [
        "--set",
        "pretrain_epochs=2",
        "--set",
        "meta_epochs=1",
        "--set",
        "calibrate=false",
        "--set",
        "device='cpu'",
    ]
    code, _, err = shell.call("train", "quiet", "log.csv", *quick)
    assert (code, err) == (0, "")  # in less than half a minute
    monkeypatch.setattr(program, "SECONDS_BETWEEN_LINES", 0.0)
    code, _, err = shell.call("train", "model", "log.csv", *quick)
    assert code == 0
    assert re.match(r"model · pretrain: 240 of 480 loss \d\.\d", err)


def test_a_simulated_world_is_trained_with_progress(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """`simulate --train` said "in half a minute", and nothing for minutes."""
    monkeypatch.setattr(program, "SECONDS_BETWEEN_LINES", 0.0)
    small = World(0, old_items=8, old_events=20, new_items=2, users=20)
    monkeypatch.setattr(simulate, "World", lambda seed: small)
    monkeypatch.setattr(world, "LEARNER", {"pretrain_epochs": 1, "meta_epochs": 1, "calibrate": False, "device": "cpu"})
    code, out, err = shell.call("simulate", "--train", "shop")
    assert code == 0
    assert "8 items learned" in out
    assert err.startswith("shop · ")


def test_help_is_never_the_value_of_an_option(shell: Shell) -> None:
    """`newcomer demo --out --help` ran the demo in a folder of that name."""
    for words in (["demo", "--out", "--help"], ["checkout", "a", "--stages", "1", "--out", "--help"]):
        code, out, err = shell.call(*words)
        assert (code, err) == (0, "")
        assert "Usage" in out
    assert not (shell.folder / "--help").exists()
