"""Write the notebooks in docs/notebooks from the tutorials in docs/tutorials.

    python tools/write_notebooks.py            # rewrite
    python tools/write_notebooks.py --check    # exit 1 and name the notebooks that differ from their tutorials

A Python block becomes a code cell without output, the text between blocks a Markdown cell.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
NOTEBOOKS = ROOT / "docs" / "notebooks"
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook_of(page: Path) -> str:
    """The notebook of a tutorial, as JSON in nbformat 4.5. Links to other pages become plain text."""
    notebook = {
        "cells": list(cells(page.read_text(encoding="utf-8"))),
        "metadata": METADATA,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def cells(text: str) -> Iterator[dict[str, Any]]:
    parts = BLOCK.split(text)  # text, code, text, code, …, text
    for number, part in enumerate(parts):
        is_code = number % 2 == 1
        source = part.strip() if is_code else LINK.sub(r"\1", part.strip())
        if not source:
            continue
        cell: dict[str, Any] = {"cell_type": "code" if is_code else "markdown", "id": f"cell-{number}", "metadata": {}}
        if is_code:
            cell |= {"execution_count": None, "outputs": []}
        yield cell | {"source": source.splitlines(keepends=True)}


def main() -> int:
    outdated = []
    for page in sorted(TUTORIALS.glob("*.md")):
        file, text = NOTEBOOKS / f"{page.stem}.ipynb", notebook_of(page)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            outdated.append(file.name)
            if "--check" not in sys.argv:
                file.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and outdated:
        print(f"notebooks differ from their tutorials: {', '.join(outdated)}; run 'make tables'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
