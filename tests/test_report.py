"""Reports: made from records alone, as self-contained pages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from newcomer.errors import StoreError
from newcomer.experiments.report.page import write_page
from newcomer.experiments.report.plots import accuracy_matrices, search_curves
from newcomer.experiments.report.runs import by_row, find_runs
from newcomer.experiments.report.table import Table, result_tables

NAN = float("nan")


def record(
    folder: Path,
    accuracy: list[list[float]],
    row: str = "sd-lora",
    seed: int = 0,
    position: int = 0,
    title: str = "Birds & <b>bees</b>",
    finished: bool = True,
    magnitudes: bool = True,
) -> Path:
    """A hand-written record; `accuracy` has one row per stage."""
    joint = len(accuracy) == 1
    start = {
        "event": "start",
        "position": position,
        "recipe": {"name": "birds", "row": row, "title": title, "seed": seed, "family": "classes"},
        "stream": {"tasks": [["a"], ["b"], ["c"]][: len(accuracy[-1])], "train_examples": 1200, "eval_examples": 60},
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
            lines.append({"event": "score", "stage": stage, "eval_set": f"task {k}", "values": values})
        info = {"magnitudes": [[1.0 + k] for k in range(t + 1)]} if magnitudes else {}
        lines.append({"event": "stage", "stage": stage, "train_seconds": 2.0, "eval_seconds": 1.0, "info": info})
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
    record(root / "a", [[1.0, 0.9, 0.8]], row="joint", position=2, magnitudes=False)
    record(root / "b", [[0.6], [0.6, 0.6]], row="frozen", position=1, finished=False, magnitudes=False)
    return root


def test_metrics_are_those_of_the_accuracy_matrix(runs: Path) -> None:
    found = {run.folder.name: run.metrics() for run in find_runs([runs])}
    first = found["z"]
    assert first["Acc"] == pytest.approx(70)
    assert first["Acc micro"] == pytest.approx(100 * (0.4 * 10 + 0.7 * 20 + 1.0 * 30) / 60)
    assert first["AAA"] == pytest.approx(100 * (1 + 0.75 + 0.7) / 3)
    assert first["forgetting"] == pytest.approx(100 * (0.6 + 0.3) / 2)
    assert first["seconds"] == 6
    assert found["a"]["Acc"] == pytest.approx(90)


def test_tables_show_means_and_stds_in_the_recipes_order(runs: Path) -> None:
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
    assert "Fast <CPU>, 1 thread" in table.note


def test_markdown_has_one_line_per_row(runs: Path) -> None:
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
    for address in re.findall(r"https?://[^\s\"'<>]+", page):  # namespaces in the metadata of a plot are not fetched
        assert address.startswith(("http://www.w3.org/", "http://purl.org/dc/", "http://creativecommons.org/ns#"))
    assert "Birds &amp; &lt;b&gt;bees&lt;/b&gt;" in page
    assert "Fast &lt;CPU&gt;" in page
    assert "55.0 ± 21.2" in page
    assert page.count("<svg") == 3  # curves, matrices, magnitudes of one row
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_same_records_give_the_same_page(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_page(find_runs([runs]), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_keeps_the_old_page(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report.html"
    write_page(find_runs([runs]), out)
    before = out.read_bytes()
    (runs / "z" / "record.jsonl").unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"report\.html: could not be written \(No space left on device\)"):
        write_page(find_runs([runs]), out)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_one_run_of_one_task_makes_a_page(tmp_path: Path) -> None:
    record(tmp_path / "run", [[0.5]])
    write_page(find_runs([tmp_path]), tmp_path / "report.html")
    assert "50.0" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_runs_without_a_finished_stage_have_no_section(runs: Path, tmp_path: Path) -> None:
    path = runs / "fresh" / "record.jsonl"
    path.parent.mkdir()
    path.write_text((runs / "z" / "record.jsonl").read_text().splitlines(keepends=True)[0])
    found = find_runs([runs])
    assert len(found) == 5
    assert next(run for run in found if run.folder.name == "fresh").metrics() == {}
    write_page(found, tmp_path / "report.html")
    (table,) = (table for rows in by_row(found).values() for table in result_tables(rows))
    assert table.rows[0][0] == "sd-lora (1 unfinished)"


def test_a_folder_without_runs_is_named(tmp_path: Path, runs: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="empty: no record of a run here; give a folder written by 'newcomer run'"):
        find_runs([runs, tmp_path / "empty"])


def test_reports_do_not_import_torch() -> None:
    code = (
        "import sys; from newcomer.experiments.report import class_analysis, comparison, item_analysis, page, plots, runs, table; "
        "print([m for m in ('torch', 'transformers', 'typer', 'rich') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize("count", [2, 25])
def test_every_row_is_named_within_the_plot(count: int) -> None:
    svg = search_curves({f"row {n}": [0.5, 0.6] for n in range(count)}, "Acc")
    height = float(re.search(r'viewBox="0 0 \S+ (\S+)"', svg)[1])  # type: ignore[index]
    named = re.findall(r"<!-- row \d+ -->\s*<g [^>]*translate\(\S+ (\S+)\)", svg)
    assert len(named) == count
    assert all(8 < float(y) < height for y in named)


def test_many_heat_maps_are_wrapped(runs: Path) -> None:
    run = find_runs([runs])[0]

    def size(count: int) -> list[float]:
        svg = accuracy_matrices({f"row {n}": run for n in range(count)})
        assert svg.count("<!-- row") == count
        return [float(part) for part in re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups()]  # type: ignore[union-attr]

    five, seven = size(5), size(7)
    assert seven == [five[0], 2 * five[1]]


PHASES = ("cold", "warm-a", "warm-b", "warm-c")


def item_record(
    folder: Path,
    aucs: list[float],
    row: str = "emerg",
    seed: int = 0,
    position: int = 0,
    curve: dict[int, float] | None = None,
    sufficient: float | None = None,
    by_events: dict[str, dict[str, float]] | None = None,
    scores: dict[str, float] | None = None,
) -> Path:
    """A record of an item run by hand: one AUC a phase, more `scores` that are the same in all; unfinished with too few phases."""
    start = {
        "event": "start",
        "position": position,
        "recipe": {"name": "films", "row": row, "title": "Films", "seed": seed, "family": "items"},
        "stream": dict.fromkeys(
            ("old_items", "old_events", "validation_items", "new_items", "phase_events", "query_events"), 10
        ),
        "versions": {"newcomer": "0.1.0"},
        "commit": "abc",
        "machine": {"system": "Linux", "processor": "Fast", "threads": 1, "gpu": None},
    }
    evaluated = [(stage, "query", auc) for stage, auc in zip(PHASES, aucs, strict=False)]
    evaluated += [(f"{events} events", "curve", auc) for events, auc in (curve or {}).items()]
    evaluated += [("sufficient", "curve", sufficient)] if sufficient else []
    lines: list[dict[str, Any]] = [start, stage_over("old", {})]
    for stage, eval_set, auc in evaluated:
        values = {"auc": auc, "item_auc": auc, "logloss": 0.5, **(scores or {})}
        lines.append({"event": "score", "stage": stage, "eval_set": eval_set, "values": values})
        lines.append(stage_over(stage, {"calibration": by_events} if by_events else {}))
    if len(aucs) == len(PHASES):
        lines.append({"event": "end"})
    folder.mkdir(parents=True)
    (folder / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def stage_over(stage: str, info: dict[str, Any]) -> dict[str, Any]:
    return {"event": "stage", "stage": stage, "train_seconds": 1.0, "eval_seconds": 1.0, "info": info}


def tables_of(folder: Path) -> dict[str, Table]:
    (rows,) = by_row(find_runs([folder])).values()
    return {table.title.partition(": ")[2]: table for table in result_tables(rows)}


def test_old_records_of_items_have_the_tables_of_what_they_hold(tmp_path: Path) -> None:
    item_record(tmp_path / "runs" / "a", [0.6, 0.7, 0.8, 0.9])
    tables = tables_of(tmp_path / "runs")
    assert list(tables) == ["AUC, pooled", "AUC within items", "log loss"]
    assert list(tables["AUC, pooled"].head) == ["", "seeds", *PHASES, "seconds"]
    write_page(find_runs([tmp_path / "runs"]), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<svg") == 2


def test_every_score_that_a_record_holds_has_a_table(tmp_path: Path) -> None:
    more = {"user_auc": 0.55, "normalised_entropy": 0.9, "calibration": 1.1, "f1": 0.4}
    item_record(tmp_path / "a", [0.6, 0.7, 0.8, 0.9], scores=more)
    tables = tables_of(tmp_path)
    shown = {
        "AUC within users": 0.55,
        "normalised entropy": 0.9,
        "calibration, Σp / Σy": 1.1,
        "F1 at the mean score": 0.4,
    }
    for name, value in shown.items():
        assert list(tables[name].rows[0]) == ["emerg", "1", *[f"{value:.4f}"] * 4, "5"]


def test_the_curve_has_a_table_and_a_figure_and_the_phases_stay_their_own(tmp_path: Path) -> None:
    for seed, lift in enumerate((0.0, 0.02)):
        curve = {0: 0.6 + lift, 1: 0.61, 10: 0.7, 2: 0.62}
        item_record(
            tmp_path / "runs" / f"a{seed}", [0.6, 0.7, 0.8, 0.9], seed=seed, curve=curve, sufficient=0.95 + lift
        )
    item_record(tmp_path / "runs" / "b", [0.5] * 4, row="old baseline", position=1)
    tables = tables_of(tmp_path / "runs")
    assert list(tables["AUC, pooled"].head) == ["", "seeds", *PHASES, "seconds"]
    assert tables["AUC, pooled"].rows[0][2] == "0.6000 ± 0.0000"
    by_events = tables["AUC by the number of events"]
    assert list(by_events.head) == ["", "seeds", "0", "1", "2", "10", "sufficient"]
    assert list(by_events.rows[0][2:]) == [
        "0.610 ± 0.014",
        *(f"{auc:.3f} ± 0.000" for auc in (0.61, 0.62, 0.7)),
        "0.960 ± 0.014",
    ]
    assert list(by_events.rows[1][2:]) == ["–"] * 5
    write_page(find_runs([tmp_path / "runs"]), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "against the number of events" in page


def test_rela_impr_is_over_the_row_that_tunes_ids(tmp_path: Path) -> None:
    item_record(tmp_path / "a", [0.6, 0.7, 0.8, 0.45])
    item_record(tmp_path / "b", [0.58, 0.6, 0.8, 0.7], row="id-tuning", position=1)
    item_record(tmp_path / "c", [0.62, 0.6, 0.8, 0.7], row="id-tuning", seed=1, position=1)
    table = tables_of(tmp_path)["RelaImpr over id-tuning, %"]
    assert list(table.rows[0]) == ["emerg", "1", "0.0", "100.0", "0.0", "-125.0"]
    assert list(table.rows[1]) == ["id-tuning", "2", "0.0 ± 28.3", "0.0 ± 0.0", "0.0 ± 0.0", "0.0 ± 0.0"]


def test_calibration_by_events_is_a_table_where_it_was_written_down(tmp_path: Path) -> None:
    sums = {"0": {"rows": 4.0, "expected": 3.0, "clicks": 2.0}, "1-4": {"rows": 4.0, "expected": 1.0, "clicks": 0.0}}
    item_record(tmp_path / "a", [0.6] * 4, by_events=sums)
    table = tables_of(tmp_path)["calibration, Σp / Σy, by the events before"]
    assert list(table.head) == ["", "seeds", "0", "1-4"]
    assert list(table.rows[0]) == ["emerg", "1", "1.500", "–"]


@pytest.mark.parametrize("phases", [0, 1, 3])
def test_an_interrupted_run_does_not_break_a_report(tmp_path: Path, phases: int) -> None:
    item_record(tmp_path / "runs" / "a", [0.6, 0.7, 0.8, 0.9])
    item_record(tmp_path / "runs" / "b", [0.6, 0.7, 0.8, 0.9][:phases], seed=1)
    item_record(tmp_path / "runs" / "c", [0.6, 0.7, 0.8, 0.9][:phases], row="id-tuning", position=1)
    assert tables_of(tmp_path / "runs")["AUC, pooled"].rows[0][0] == "emerg (1 unfinished)"
    write_page(find_runs([tmp_path / "runs"]), tmp_path / "report.html")
    write_page(find_runs([tmp_path / "runs" / "b"]), tmp_path / "report.html")


def test_an_interrupted_class_run_does_not_break_a_report(tmp_path: Path) -> None:
    record(tmp_path / "runs" / "a", [[1.0], [0.5, 1.0]])
    record(tmp_path / "runs" / "b", [[1.0]], seed=1, finished=False)
    write_page(find_runs([tmp_path / "runs"]), tmp_path / "report.html")
    assert "sd-lora (1 unfinished)" in (tmp_path / "report.html").read_text(encoding="utf-8")
