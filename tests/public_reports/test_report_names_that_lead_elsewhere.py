"""Names become folders and files of others become pages: none leads out of its folder, none ends in a trace."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from newcomer.errors import NewcomerError, RecipeError, StoreError
from newcomer.experiments.recipe import read_recipe, shipped
from newcomer.experiments.report.comparison import read_comparison
from newcomer.experiments.report.record_schema import read_comparison_file
from newcomer.store.names import invalid_reason
from shell import Shell

BASELINE = '[baselines."{}".learner]\nname = "frozen"\n'
START = {
    "event": "start",
    "position": 0,
    "recipe": {"name": "birds", "row": "frozen", "title": "Birds", "seed": 0, "family": "classes"},
    "stream": {"tasks": [["a"]], "train_examples": 12, "eval_examples": 6},
    "versions": {},
    "commit": None,
    "machine": {"system": "Linux", "processor": "Fast", "threads": 1, "gpu": None},
}
SCORE = {"event": "score", "stage": "task 0", "eval_set": "task 0", "values": {"accuracy": 0.5, "examples": 6.0}}
STAGE = {"event": "stage", "stage": "task 0", "train_seconds": 1.0, "eval_seconds": 1.0, "info": {}}
ROW = {"position": 0, "combinations": 1, "trials": [], "chosen": {}, "score": None, "seeds": [0]}
COMPARED = {"title": "Birds", "family": "classes", "floor": [], "ceiling": [], "rows": {"frozen": ROW}}


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".", "", "/tmp/x", "a\\b", "c:x", "x\x1b[31m", "nul", "x.", "ü" * 101]
)
def test_a_row_whose_name_leads_elsewhere_is_refused_before_anything_is_made(name: str, shell: Shell) -> None:
    """CWE-22: a recipe from elsewhere with a baseline called `../x`, whose run was written beside the folder of --out."""
    quoted = name.encode("unicode_escape").decode() if "\x1b" not in name else "x\\u001b[31m"
    with (shell.folder / "birds.toml").open("a") as file:
        file.write(BASELINE.format(quoted if name != "ü" * 101 else name))
    assert "cannot be the name of a folder" in shell.fails("run", "birds.toml", "--baselines", "--out", "deep/er/out")
    assert not (shell.folder / "deep").exists()


def test_a_recipe_whose_own_name_leads_elsewhere_is_refused(shell: Shell) -> None:
    """A file called `...toml`, whose runs would have been written into the parent of `runs`."""
    (shell.folder / "birds.toml").rename(shell.folder / "...toml")
    assert "rename the file" in shell.fails("run", "...toml")


def test_every_shipped_name_and_ordinary_ones_are_fit() -> None:
    assert [
        invalid_reason(row.row) for name in shipped() for row in read_recipe(name).rows() if invalid_reason(row.row)
    ] == []
    assert [invalid_reason(name) for name in ("größer", "sd-lora (rank 4)", "$5 & 6", "字", "a.b", "v1.0")] == [
        None
    ] * 6


def test_a_comparison_from_elsewhere_removes_and_reads_nothing_outside(shell: Shell) -> None:
    """The user sent a comparison to be continued: the seeds and rows that it named were joined to paths and removed."""
    assert shell.call("compare", "birds.toml", "--seeds", "1", "--out", "out")[0] == 0
    path = shell.folder / "out" / "birds" / "comparison.json"
    path = path if path.exists() else shell.folder / "out" / "comparison.json"
    honest = json.loads(path.read_text())
    victim = shell.folder / "victim"
    victim.mkdir()
    (victim / "photo.jpg").write_bytes(b"mine")
    for change in ({"seeds": ["/../../../../victim"]}, {"seeds": [0, None]}):
        forged = json.loads(json.dumps(honest))
        (row,) = forged["rows"].values()
        row |= change | {"ran_with": {"rank": 77}}
        path.write_text(json.dumps(forged))
        assert "not a valid comparison" in shell.fails("compare", "birds.toml", "--seeds", "1", "--out", "out")
    for name in ("../../victim", "/etc", ".."):
        path.write_text(json.dumps(honest | {"rows": dict.fromkeys([name], *honest["rows"].values())}))
        assert "cannot be the name of a folder" in shell.fails("compare", "birds.toml", "--seeds", "1", "--out", "out")
    assert (victim / "photo.jpg").read_bytes() == b"mine"


OTHERS: list[Any] = [None, 7.5, "x", [], {}, [None]]
FIRST: list[Any] = [[], 3, {"event": []}, {"event": "end"}]


def broken(whole: Any) -> list[Any]:
    """This content with each of its parts in turn replaced by what it cannot be, and without it."""
    if not isinstance(whole, dict):
        return []
    found: list[Any] = []
    for key, value in whole.items():
        found += [{**whole, key: other} for other in OTHERS if type(other) is not type(value)]
        found += [{**whole, key: inner} for inner in broken(value)]
        found.append({k: v for k, v in whole.items() if k != key})
    return found


def test_no_record_from_elsewhere_ends_a_report_in_a_trace(tmp_path: Path) -> None:
    """A record of other types than ours: KeyError, TypeError and AttributeError of Python's in `newcomer report`."""
    from newcomer.experiments.report.runs import by_row, find_runs
    from newcomer.experiments.report.table import result_tables

    def reported(events: list[Any]) -> None:
        (tmp_path / "record.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        for rows in by_row(find_runs([tmp_path])).values():
            result_tables(rows)

    reported([START, SCORE, STAGE, {"event": "end"}])
    for n, event in enumerate([START, SCORE, STAGE]):
        for changed in broken(event):
            events = [START, SCORE, STAGE, {"event": "end"}]
            events[n] = changed
            with suppress(NewcomerError):  # nothing else: neither a KeyError nor a TypeError
                reported(events)
    for first in [*FIRST, SCORE]:
        with pytest.raises(StoreError, match="line 1 is not a valid event"):
            reported([first])


def test_no_comparison_from_elsewhere_ends_in_a_trace(tmp_path: Path) -> None:
    """The same of `comparison.json`."""
    path = tmp_path / "comparison.json"

    def read(content: Any) -> None:
        path.write_text(json.dumps(content))
        read_comparison(tmp_path)

    read(COMPARED)
    for content in [[], 3, None, "x", {}, *broken(COMPARED)]:
        with suppress(StoreError):
            read(content)
    for text in ("[" * 100_000, "{", "\xff"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(StoreError, match="not a valid comparison"):
            read_comparison_file(path)


def test_every_kept_comparison_and_record_is_read() -> None:
    from newcomer.experiments.report.runs import find_runs

    kept = Path(__file__).parents[2] / "benchmarks" / "quality"
    assert all(read_comparison_file(path)["rows"] for path in kept.glob("*/comparison.json"))
    assert find_runs([kept / "digits"])


def test_a_hand_written_recipe_of_too_many_brackets_is_one_line(tmp_path: Path) -> None:
    """A fuzzed TOML file: RecursionError."""
    path = tmp_path / "deep.toml"
    path.write_text("title = " + "[" * 100_000)
    with pytest.raises(RecipeError):
        read_recipe(str(path))
