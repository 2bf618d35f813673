"""What is imported when, and the errors of missing optional dependencies."""

import subprocess
import sys

import pytest

import newcomer
from newcomer.cli.commands import COMMANDS
from newcomer.cli.program import load_command
from newcomer.errors import MissingExtraError
from newcomer.registry import import_object
from newcomer.store.urls import open_states
from shell import Shell

HEAVY = ("torch", "scipy", "matplotlib", "sklearn", "pandas", "transformers", "polars", "sqlalchemy")
HELP = "import sys; sys.argv = ['newcomer', '--help']; from newcomer.cli import main; main(); "
LEARNED_ONLY = ("scipy", "matplotlib", "sklearn", "pandas", "transformers")


def loaded(code: str, modules: tuple[str, ...]) -> list[str]:
    """Which of the modules a new process has imported after the code."""
    code += f"\nimport sys; print([name for name in {modules} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return eval(done.stderr.splitlines()[-1])  # type: ignore[no-any-return]


def test_the_package_and_its_help_import_nothing_heavy() -> None:
    assert loaded("import newcomer", HEAVY) == []
    assert loaded(HELP, HEAVY) == []


def test_commands_of_click_models_import_no_libraries_of_classifiers_and_reports() -> None:
    code = "import newcomer.cli.items, newcomer.cli.training; from newcomer.experiments.recipe import read_recipe; "
    assert loaded(code + "read_recipe('world').rows()", LEARNED_ONLY) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_all_commands_lists_each(name: str, shell: Shell) -> None:
    assert load_command(name).name == name
    code, out, _ = shell.call("--help")
    assert code == 0
    assert f"\n  {name} " in out


def test_without_typer_the_command_line_names_its_extra() -> None:
    code = "import sys; sys.modules['typer'] = None; from newcomer.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "newcomer: typer is not installed; run: pip install 'newcomer[cli]'\n")


def test_a_command_without_its_extra_names_it() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; sys.argv = ['newcomer', 'report', 'x']; "
    code += "from newcomer.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = "newcomer: matplotlib is not installed; run: pip install 'newcomer[report]'\n"
    assert (done.returncode, done.stderr) == (2, expected)


@pytest.mark.parametrize(
    ("library", "path", "extra"),
    [
        ("sklearn", "newcomer.estimator:NewcomerClassifier", "sklearn"),
        ("sklearn", "newcomer.data.datasets.digits:digits", "sklearn"),
        ("yaml", "newcomer.data.datasets.splits:by_name", "data"),
    ],
)
def test_a_missing_library_is_one_sentence(
    library: str, path: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, path.partition(":")[0], raising=False)
    with pytest.raises(MissingExtraError) as caught:
        import_object(path)
    assert str(caught.value) == f"{library} is not installed; run: pip install 'newcomer[{extra}]'"
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("library", "url", "extra"),
    [
        ("psycopg", "postgresql+psycopg://me:secret@host/items", "postgres"),
        ("valkey", "valkey://me:secret@host:6379/0", "valkey"),
    ],
)
def test_a_missing_driver_of_a_database_is_one_sentence(
    library: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "newcomer.store.valkey_states", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        open_states(url)
    assert str(caught.value) == f"{library} is not installed; run: pip install 'newcomer[{extra}]'"


def test_other_import_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "newcomer.estimator", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        newcomer.NewcomerClassifier  # noqa: B018
    assert not isinstance(caught.value, MissingExtraError)
