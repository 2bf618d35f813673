"""Write the tables of results into README.md and docs, from the records in benchmarks/quality.

    python tools/write_tables.py            # rewrite
    python tools/write_tables.py --check    # exit 1 and name the file where a table is not what the records say

A table stands between `<!-- table NAME -->` and `<!-- end -->`, NAME being a folder of records.
"""

import re
import sys
from pathlib import Path

from newcomer.report.runs import by_row, find_runs
from newcomer.report.table import result_tables

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "quality"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """The first table of a recipe in Markdown, with a line on where its numbers come from."""
    result = result_tables(next(iter(by_row(find_runs([RECORDS / name])).values())))[0]
    return f"{result.markdown()}\n\n{result.note}\n"


def written(text: str) -> str:
    """The page with every marked table as its records say."""
    return MARKED.sub(lambda found: found[1] + table(found[2]) + found[3], text)


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
