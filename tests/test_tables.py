"""The tables in README and docs are up to date with the records."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_notebook_agrees_with_its_tutorial() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "write_notebooks.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_table_agrees_with_its_records() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "write_tables.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_outdated_page_is_named(tmp_path: Path) -> None:
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
    done = subprocess.run(
        [sys.executable, str(tmp_path / "write_tables.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "tables differ from the records: README.md; run 'make tables'\n")
