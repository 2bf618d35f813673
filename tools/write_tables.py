"""Write the tables of results into README.md and docs, from the records in benchmarks/quality.

    python tools/write_tables.py            # rewrite
    python tools/write_tables.py --check    # exit 1 and name the pages whose tables differ from the records

A table is between `<!-- table NAME -->` and `<!-- end -->`, NAME being a folder of records; `differences`, `metrics`, `trials` and
`costs` in place of `table` are tables of a comparison, `calibration` is that of click probabilities, `summary results` is the table
of the README.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from newcomer.experiments.report.comparison import (
    cost_table,
    difference_table,
    metric_table,
    read_comparison,
    search_table,
)
from newcomer.experiments.report.runs import Run, by_row, find_runs
from newcomer.experiments.report.table import DASH, cell, result_tables

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "quality"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKER = re.compile(r"(<!-- (\w+) ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
COMPARISON_TABLES = {
    "differences": difference_table,
    "metrics": metric_table,
    "trials": search_table,
    "costs": cost_table,
}
SUMMARY_HEAD = ["", "score", "SD-LoRA / EmerG", "plain baseline", "nearest other row", "upper end"]
CLASS_SCORES, ITEM_SCORES = {"Acc": ".1f"}, {"cold auc": ".3f", "warm-c auc": ".3f"}
SUMMARY = [
    ("CIFAR-100, 5 tasks", "cifar100-vit-tiny", ["sd-lora", "frozen-gaussian", "sequential-started", "joint-gaussian"]),
    (
        "CIFAR-100, 10 tasks",
        "cifar100-vit-tiny-10-tasks",
        ["sd-lora", "frozen-gaussian", "ranpac-first-task", "joint-gaussian"],
    ),
    ("Banking77, 7 tasks", "banking77-minilm", ["sd-lora", "frozen-kernel", "sequential-started", "joint-kernel"]),
    ("Digits, 5 tasks", "digits", ["sd-lora", "frozen-nearest-mean", "", "joint"]),
    ("MovieLens-1M", "ml-1m", ["emerg", "id-tuning", "deepfm-bayes", ""]),
    ("MovieLens latest-small", "ml-latest-small", ["emerg", "id-tuning", "deepfm-bayes", ""]),
    ("Simulated, planted interactions", "world", ["emerg", "id-tuning", "deepfm-bayes", "limit"]),
    ("Simulated, none planted", "world-without", ["emerg", "id-tuning", "no-item-graph", "limit"]),
]
"""Line of the summary: title, folder of records, and the row in each column; 'limit' is the Bayes-optimal AUC."""


def table(kind: str, name: str) -> str:
    """A table of this kind in Markdown, with its note."""
    if kind == "summary":
        return summary()
    if kind == "calibration":
        return calibration(name)
    if kind in COMPARISON_TABLES:
        result = COMPARISON_TABLES[kind](read_comparison(RECORDS / name))
        assert result is not None, f"{name} has no {kind}"
    else:
        result = result_tables(runs_by_row(name))[0]
    return f"{result.markdown()}\n\n{result.note}\n"


def calibration(name: str) -> str:
    """Clicks expected over clicks that came, and the expected calibration error, of each row after each phase."""
    rows = runs_by_row(name)
    phases = [phase["stage"] for phase in next(iter(rows.values()))[0].phases]
    lines = [["", *phases], ["---", *["--:"] * len(phases)]]
    for row, runs in rows.items():
        metrics = [run.metrics() for run in runs]
        means = [
            [cell([one[f"{phase} {score}"] for one in metrics], ".3f").split(" ")[0] for phase in phases]
            for score in ("calibration", "calibration_error")
        ]
        lines.append([row, *(f"{ratio} ({error})" for ratio, error in zip(*means, strict=True))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def runs_by_row(name: str) -> dict[str, list[Run]]:
    """The runs of a folder of records: row → runs over seeds."""
    return next(iter(by_row(find_runs([RECORDS / name])).values()))


def summary() -> str:
    """One line per data set: mean score of the method, of a plain baseline, of the nearest other row, and of the upper end."""
    lines = [SUMMARY_HEAD, ["---", "---", *["--:"] * 4]]
    for title, name, rows in SUMMARY:
        runs = runs_by_row(name)
        is_classes = "sd-lora" in runs
        scores = CLASS_SCORES if is_classes else ITEM_SCORES
        column = "Acc, %" if is_classes else "AUC, cold → warm-c"
        lines.append([title, column, *(summary_cell(runs, row, scores) for row in rows)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def summary_cell(runs: Mapping[str, Sequence[Run]], row: str, scores: Mapping[str, str]) -> str:
    """Mean scores of a row with its name."""
    if not row:
        return DASH
    if row == "limit":
        limit = next(iter(runs.values()))[0].limit
        assert limit is not None
        return f"{limit:.3f} (Bayes limit)"
    metrics = [run.metrics() for run in runs[row]]
    means = [cell([values[score] for values in metrics], spec).split(" ")[0] for score, spec in scores.items()]
    return f"{' → '.join(means)} (`{row}`)"


def with_tables(text: str) -> str:
    """The page with every marked table written anew from the records."""
    return MARKER.sub(lambda match: match[1] + table(match[2], match[3]) + match[4], text)


def main() -> int:
    outdated = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if with_tables(text) != text:
            outdated.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(with_tables(text), encoding="utf-8")
    if "--check" in sys.argv and outdated:
        print(f"tables differ from the records: {', '.join(outdated)}; run 'make tables'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
