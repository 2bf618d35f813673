"""The code, commands and links of README and docs work; so do the notebooks."""

import pkgutil
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import polars as pl
import pytest
import torch

import newcomer
from newcomer.cli import app
from newcomer.cli.commands import COMMANDS
from newcomer.cli.program import load_command
from newcomer.data.datasets.digits import digits
from newcomer.data.schema import Field, Schema
from newcomer.experiments.recipe import read_recipe, shipped
from newcomer.items.methods.emerg import EmerG
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from serving import in_thread

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
RECIPES, GLOSSARY = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("recipes.md", "glossary.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MAX_README_LINES = 150
READERS_LEARNER = "feature-adapter"
"""The learner that `docs/extending.md` makes; `test_registry` installs it."""


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Every `newcomer …` of a page, indented or in backticks, without its comment; lines that end in a backslash go on."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"^```python\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    shown = re.findall(r"^ +(?:\$ )?(newcomer [^#\n]*)", text, re.MULTILINE) + re.findall(
        r"`(newcomer [a-z][^`]*)`", text
    )
    return [shlex.split(command) for command in shown]


def write_readers_files(folder: Path) -> None:
    """The files that the README's reader has: images of digits in photos/ and march/, a click log."""
    train, _ = digits()
    for name, classes in (("photos", "0123"), ("march", "45")):
        for digit in classes:
            (folder / name / digit).mkdir(parents=True)
            for n in [n for n, label in enumerate(train.labels) if label == digit][:12]:
                train.inputs[n].save(folder / name / digit / f"{n}.png")  # type: ignore[union-attr]
    (folder / "garden").mkdir()
    train.inputs[0].save(folder / "garden" / "1.png")  # type: ignore[union-attr]
    rows = [
        f"{'ab'[n % 2]},{n % 10},{('war', 'love')[n % 2]},{('phone', 'tv')[n // 2 % 2]},{n % 5 % 2},{n}"
        for n in range(80)
    ]
    rows = ["film,viewer,genre,device,liked,seen_at", *rows]
    (folder / "clicks.csv").write_text("\n".join(rows) + "\n")


SERVICE = "http://localhost:8000"


@contextmanager
def served_shop(folder: Path) -> Iterator[str]:
    """The URL of the service that the page on it speaks to."""
    fields = (Field("genre", "item"), Field("device", "context"))
    schema = Schema("item_id", "user_id", "click", "timestamp", fields)
    rows = range(80)
    columns = {
        "item_id": [n % 4 for n in rows],
        "user_id": [n % 10 for n in rows],
        "genre": ["ab"[n % 2] for n in rows],
    }
    columns |= {
        "device": ["tv"] * 80,
        "click": [n % 3 % 2 for n in rows],
        "timestamp": [1_700_000_000 + n for n in rows],
    }
    EmerG(schema, pretrain_epochs=1, meta_epochs=1, device="cpu").learn(pl.DataFrame(columns)).save(folder / "shop")
    with in_thread(create_app(ServeConfig(stores=(folder / "shop",)))) as url:
        yield url


def test_the_readme_has_code_and_commands_and_is_short() -> None:
    assert len(blocks(PAGES[0])) >= 2
    assert len(commands(PAGES[0])) >= 4
    assert len(README.splitlines()) <= MAX_README_LINES


@pytest.mark.filterwarnings("ignore::newcomer.errors.DataWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and page.name != "ray.md"], ids=page_name)
@pytest.mark.always
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the blocks of a page in order; a tutorial in an empty folder, any other page in one with the reader's files."""
    if page.parent.name != "tutorials":
        write_readers_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "page"}
    with served_shop(tmp_path) if page.name == "service.md" else nullcontext(SERVICE) as url:
        for number, block in enumerate(blocks(page)):
            exec(compile(block.replace(SERVICE, url), f"{page.name}, block {number}", "exec"), names)


@pytest.mark.slow  # a cluster
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_the_page_on_ray_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    write_readers_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    names: dict[str, object] = {"__name__": "page"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for number, block in enumerate(blocks(ROOT / "docs" / "ray.md")):
            exec(compile(block, f"ray.md, block {number}", "exec"), names)
    finally:
        ray.shutdown()
    assert {path.name for path in tmp_path.iterdir()} >= {"birds", "shop", "items.db", "scores"}


@pytest.mark.slow  # the code is that of the tutorials, which runs above
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=page_name)
def test_notebooks_run(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    content = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(content, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_one_summary(name: str) -> None:
    """`newcomer --help` shows it before the command's module is imported, `newcomer NAME --help` afterwards."""
    assert load_command(name).help.replace("\n", " ").startswith(COMMANDS[name][1])


def test_a_command_can_be_called_as_the_page_on_ray_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert "`newcomer.cli.app([" in (ROOT / "docs" / "ray.md").read_text(encoding="utf-8")
    app(["recipes"], standalone_mode=False)
    assert "digits" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_exist_with_their_options(page: Path) -> None:
    for words in commands(page):
        name, *arguments = words[1:]
        assert name in COMMANDS, f"{page.name}: {shlex.join(words)}"
        command = load_command(name)
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options, f"{page.name}: {shlex.join(words)}"
        positional = [
            w for w, before in zip(arguments, ["", *arguments], strict=False) if w[0] != "-" and before[:1] != "-"
        ]
        if READERS_LEARNER in shlex.join(words):
            continue
        if name == "run" and positional and positional[0].islower() and not positional[0].endswith(".toml"):
            changes = [w for w, before in zip(arguments, ["", *arguments], strict=False) if before == "--set"]
            assert positional[0] in shipped(), f"{page.name}: {shlex.join(words)}"
            read_recipe(positional[0], changes)


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("[A-Z]*.md"))[1:]], ids=page_name)
def test_links_to_files_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b(?= *(?:#|`|\n))", README)) <= targets


def test_recipes_of_the_docs_are_valid(tmp_path: Path) -> None:
    recipes = re.findall(r"^```toml\n(title.*?|\[data\].*?)^```", RECIPES, re.DOTALL | re.MULTILINE)
    assert len(recipes) == 4
    for number, content in enumerate(recipes):
        file = tmp_path / f"recipe-{number}.toml"
        file.write_text(content, encoding="utf-8")
        assert read_recipe(str(file)).rows()


def test_the_glossary_names_what_is_in_the_code() -> None:
    packages = "streams|store|training|data|nn|classes|items|experiments|backbones|metrics"
    names = set(re.findall(rf"`((?:{packages})\.[\w.]+)`", GLOSSARY))
    assert len(names) > 30
    for name in names:
        assert pkgutil.resolve_name(f"newcomer.{name}")


def test_the_api_reference_has_every_public_name() -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "api")
    errors = {name for name in newcomer.__all__ if name.endswith(("Error", "Warning"))}  # in ::: newcomer.errors
    assert {name for name in newcomer.__all__ if f"::: newcomer.{name}\n" not in reference} == errors


def test_listed_slow_tests_are_there() -> None:
    for name in (ROOT / "tests" / "slow_tests.txt").read_text(encoding="utf-8").splitlines():
        file, function = name.split("[")[0].split("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), name
