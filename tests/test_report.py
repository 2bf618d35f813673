"""Reports are made of records alone, and a page needs nothing but itself."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from newcomer.errors import StoreError
from newcomer.report.page import write_page
from newcomer.report.runs import by_row, find_runs
from newcomer.report.table import result_tables

NAN = float("nan")


def record(
    folder: Path,
    accuracy: list[list[float]],
    row: str = "sd-lora",
    seed: int = 0,
    place: int = 0,
    title: str = "Birds & <b>bees</b>",
    finished: bool = True,
    magnitudes: bool = True,
) -> Path:
    """A record by hand; `accuracy` has one row a stage."""
    joint = len(accuracy) == 1
    start = {
        "event": "start",
        "place": place,
        "recipe": {"name": "birds", "row": row, "title": title, "seed": seed, "family": "classes"},
        "stream": {"tasks": [["a"], ["b"], ["c"]][: len(accuracy[-1])], "taught": 1200, "asked": 60},
        "versions": {"newcomer": "0.1.0", "torch": "2"},
        "commit": "abc",
        "machine": {"system": "Linux", "processor": "Fast <CPU>", "threads": 1, "gpu": None},
    }
    lines: list[dict[str, Any]] = [start]
    for t, scores in enumerate(accuracy):
        stage = "all tasks" if joint else f"task {t}"
        lines.append({"event": "step", "part": stage, "step": 1, "steps": 1, "values": {"loss": 1.0}})
        for k, value in enumerate(scores):
            values = {"accuracy": value, "examples": 10.0 * (k + 1)}
            lines.append({"event": "score", "stage": stage, "exam": f"task {k}", "values": values})
        facts = {"magnitudes": [[1.0 + k] for k in range(t + 1)]} if magnitudes else {}
        lines.append({"event": "stage", "stage": stage, "study_seconds": 2.0, "exam_seconds": 1.0, "facts": facts})
    if finished:
        lines.append({"event": "end"})
    folder.mkdir(parents=True)
    (folder / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    record(root / "z", [[1.0], [0.5, 1.0], [0.4, 0.7, 1.0]])
    record(root / "y", [[0.8], [0.5, 0.8], [0.4, 0.4, 0.4]], seed=1)
    record(root / "a", [[1.0, 0.9, 0.8]], row="joint", place=2, magnitudes=False)
    record(root / "b", [[0.6], [0.6, 0.6]], row="frozen", place=1, finished=False, magnitudes=False)
    return root


def test_figures_are_those_of_the_matrix(runs: Path) -> None:
    found = {run.folder.name: run.figures() for run in find_runs([runs])}
    first = found["z"]
    assert first["Acc"] == pytest.approx(70)
    assert first["Acc micro"] == pytest.approx(100 * (0.4 * 10 + 0.7 * 20 + 1.0 * 30) / 60)
    assert first["AAA"] == pytest.approx(100 * (1 + 0.75 + 0.7) / 3)
    assert first["forgetting"] == pytest.approx(100 * (0.6 + 0.3) / 2)
    assert first["seconds"] == 6
    assert found["a"]["Acc"] == pytest.approx(90)


def test_tables_show_means_and_spreads_in_the_recipes_order(runs: Path) -> None:
    ((name, rows),) = by_row(find_runs([runs])).items()
    (table,) = result_tables(rows)
    assert name == "birds"
    assert table.title == "Birds & <b>bees</b>"
    assert list(table.head) == ["", "seeds", "Acc", "AAA", "forgetting", "seconds"]
    assert [list(row) for row in table.rows] == [
        ["sd-lora", "2", "55.0 ± 21.2", "71.7 ± 14.1", "42.5 ± 3.5", "6 ± 0"],
        ["frozen (1 unfinished)", "0", "–", "–", "–", "–"],
        ["joint", "1", "90.0", "–", "–", "2"],
    ]
    assert "Fast <CPU>, 1 threads" in table.note


def test_markdown_is_one_line_a_row(runs: Path) -> None:
    (rows,) = by_row(find_runs([runs])).values()
    (table,) = result_tables(rows)
    lines = table.markdown().splitlines()
    assert lines[1] == "|---|--:|--:|--:|--:|--:|"
    assert len(lines) == 5
    assert all(line.count("|") == 7 for line in lines)


def test_the_page_is_self_contained(runs: Path, tmp_path: Path) -> None:
    write_page(find_runs([runs]), tmp_path / "new" / "report.html")
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b", page)
    fetched = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)|@import", page)
    assert all((one or other).startswith(("#", "data:")) for one, other in fetched)
    for address in re.findall(
        r"https?://[^\s\"'<>]+", page
    ):  # names in the metadata of a plot, nothing that is fetched
        assert address.startswith(("http://www.w3.org/", "http://purl.org/dc/", "http://creativecommons.org/ns#"))
    assert "Birds &amp; &lt;b&gt;bees&lt;/b&gt;" in page
    assert "Fast &lt;CPU&gt;" in page
    assert "55.0 ± 21.2" in page
    assert page.count("<svg") == 3  # curves, matrices, magnitudes of the one row that has some
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_same_records_give_the_same_page(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_page(find_runs([runs]), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_page_that_fails_leaves_the_old_one(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report.html"
    write_page(find_runs([runs]), out)
    before = out.read_bytes()
    (runs / "z" / "record.jsonl").unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match=r"report\.html: could not be written \(No space left on device\)"):
        write_page(find_runs([runs]), out)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_one_run_of_one_task_makes_a_page(tmp_path: Path) -> None:
    record(tmp_path / "run", [[0.5]])
    write_page(find_runs([tmp_path]), tmp_path / "report.html")
    assert "50.0" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_runs_without_a_finished_stage_are_no_section(runs: Path, tmp_path: Path) -> None:
    path = runs / "fresh" / "record.jsonl"
    path.parent.mkdir()
    path.write_text((runs / "z" / "record.jsonl").read_text().splitlines(keepends=True)[0])
    found = find_runs([runs])
    assert len(found) == 5
    assert next(run for run in found if run.folder.name == "fresh").figures() == {}
    write_page(found, tmp_path / "report.html")
    (table,) = (table for rows in by_row(found).values() for table in result_tables(rows))
    assert table.rows[0][0] == "sd-lora (1 unfinished)"


def test_a_folder_without_runs_is_named(tmp_path: Path, runs: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="empty: no record of a run here; give a folder that 'newcomer run' wrote"):
        find_runs([runs, tmp_path / "empty"])


def test_reports_are_drawn_without_torch() -> None:
    code = (
        "import sys, newcomer.report.page, newcomer.report.plots, newcomer.report.runs, newcomer.report.table; "
        "print([m for m in ('torch', 'transformers', 'typer', 'rich') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
