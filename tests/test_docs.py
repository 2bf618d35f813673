"""What the README shows runs, and what it names exists."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from newcomer.cli import app
from newcomer.experiments.recipe import read_recipe, shipped

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Every `newcomer …` that a page shows, indented or between backticks, without its comment."""
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^ +(?:\$ )?(newcomer [^#\n]*)", text, re.MULTILINE) + re.findall(
        r"`(newcomer [a-z][^`]*)`", text
    )
    return [shlex.split(command) for command in shown]


def test_there_is_something_to_try() -> None:
    assert len(blocks(PAGES[0])) >= 2
    assert len(commands(PAGES[0])) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page one after the other, in an empty folder, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    program = get_command(app)
    for words in commands(page):
        name, *given = words[1:]
        assert name in program.commands, f"{page.name}: {shlex.join(words)}"  # type: ignore[attr-defined]
        command = program.commands[name]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in given if word.startswith("--")} <= options, f"{page.name}: {shlex.join(words)}"
        plain = [w for w, before in zip(given, ["", *given], strict=False) if w[0] != "-" and before[:1] != "-"]
        if name == "run" and plain and plain[0].islower() and not plain[0].endswith(".toml"):
            changes = [w for w, before in zip(given, ["", *given], strict=False) if before == "--set"]
            assert plain[0] in shipped(), f"{page.name}: {shlex.join(words)}"
            read_recipe(plain[0], changes)


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_makes_of_the_readme_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b(?= *(?:#|`|\n))", README)) <= targets
