"""Write the tables of results into README.md and docs, from the records in benchmarks/quality.

    python tools/write_tables.py            # rewrite
    python tools/write_tables.py --check    # exit 1 and name the file where a table is not what the records say

A table stands between `<!-- table NAME -->` and `<!-- end -->`, NAME being a folder of records; `differences`, `parts`, `tries`
and `costs` in place of `table` are those of a comparison.
"""

import re
import sys
from pathlib import Path

from newcomer.experiments.report.comparison import (
    cost_table,
    difference_table,
    parts_table,
    read_comparison,
    search_table,
)
from newcomer.experiments.report.runs import by_row, find_runs
from newcomer.experiments.report.table import result_tables

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "quality"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"(<!-- (\w+) ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
OF_COMPARISONS = {"differences": difference_table, "parts": parts_table, "tries": search_table, "costs": cost_table}


def table(kind: str, name: str) -> str:
    """A table of this kind in Markdown, with a line on where its numbers come from or what they mean."""
    if kind in OF_COMPARISONS:
        result = OF_COMPARISONS[kind](read_comparison(RECORDS / name))
        assert result is not None, f"{name} has no {kind}"
    else:
        result = result_tables(next(iter(by_row(find_runs([RECORDS / name])).values())))[0]
    return f"{result.markdown()}\n\n{result.note}\n"


def written(text: str) -> str:
    """The page with every marked table as its records say."""
    return MARKED.sub(lambda found: found[1] + table(found[2], found[3]) + found[4], text)


def main() -> int:
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if written(text) != text:
            wrong.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(written(text), encoding="utf-8")
    if "--check" in sys.argv and wrong:
        print(f"not what the records say: {', '.join(wrong)}; run 'make docs'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
