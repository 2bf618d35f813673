"""The tables in README and docs are up to date with the records."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Check = Callable[[Path], tuple[object, str]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs a script with `--check`; its exit code and what it said."""

    def run(script: Path) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", [str(script), "--check"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        return end.value.code, capsys.readouterr().err

    return run


def test_every_notebook_agrees_with_its_tutorial(check: Check) -> None:
    assert check(ROOT / "tools" / "write_notebooks.py") == (0, "")


def test_every_table_agrees_with_its_records(check: Check) -> None:
    assert check(ROOT / "tools" / "write_tables.py") == (0, "")


def test_an_outdated_page_is_named(tmp_path: Path, check: Check) -> None:
    (tmp_path / "docs").mkdir()
    for folder in ("tools", "benchmarks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    script = (ROOT / "tools" / "write_tables.py").read_text(encoding="utf-8")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(
        page.replace("| Digits, 5 tasks | Acc, % | 9", "| Digits, 5 tasks | Acc, % | 8", 1), encoding="utf-8"
    )
    (tmp_path / "write_tables.py").write_text(
        script.replace("Path(__file__).parents[1]", f"Path({str(tmp_path)!r})"), encoding="utf-8"
    )
    said = "tables differ from the records: README.md; run 'make tables'\n"
    assert check(tmp_path / "write_tables.py") == (1, said)
