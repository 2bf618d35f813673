"""`newcomer inspect` for pictures and texts of one's own: what classes there are, and a recipe for them."""

from pathlib import Path

import polars as pl

from newcomer.cli.aligned import print_table
from newcomer.cli.program import finish, say, shorten
from newcomer.data.inference.class_recipe import ClassProposal, propose_classes, write_class_recipe
from newcomer.data.io.domain_folders import training_domains
from newcomer.data.io.example_sources import training_examples, training_part
from newcomer.data.io.image_folders import list_visible
from newcomer.data.io.text_files import TABLES
from newcomer.errors import SettingError
from newcomer.printable import counted, printable_json

SHOWN = 20
"""Classes in a table."""


def is_image_folder(path: str) -> bool:
    """Whether this is a folder of class folders, or of parts that have these."""
    folder = Path(path)
    return folder.is_dir() and any(p.is_dir() for p in list_visible(folder))


def is_text_table(path: str, text: str | None, label: str | None) -> bool:
    """Whether columns of text and label are named, or the table has these two and no other."""
    if text is not None or label is not None:
        return True
    file = Path(path)
    if not file.is_file() or file.suffix.lower() not in TABLES:
        return False
    try:
        with file.open("rb") as stream:  # polars cannot open every name; the header alone, as a log may be large
            is_csv = file.suffix.lower() == ".csv"
            names = pl.read_csv(stream.readline(65536)).columns if is_csv else [*pl.read_parquet_schema(stream)]
        return sorted(names) == ["label", "text"]
    except (pl.exceptions.PolarsError, OSError):  # what a log of clicks is refused for is said there
        return False


def show_class_data(
    path: str, write: Path | None, text: str | None, label: str | None, *, images: bool, json_: bool
) -> None:
    """Show the classes of a folder or table, and write a recipe. Unreadable inputs are skipped and reported."""
    if Path(path).is_dir() and not images:
        raise SettingError(f"{path}: a folder, and --text and --label are for a table of texts; leave them out")
    left_out: list[str] = []
    columns = text or "text", label or "label"
    folder = Path(path)
    with_domains = training_domains(folder) if images else None
    examples = with_domains or training_examples(folder, *columns, left_out)
    has_train = training_part(folder) is not None or (with_domains is not None and (folder / "train").is_dir())
    has_test = images and has_train and (folder / "test").is_dir()
    proposal = propose_classes(folder, examples, reads_images=images, columns=columns, has_test=has_test)
    if write:
        write_class_recipe(proposal, write)
    if json_:
        found = {"classes": proposal.counts, "tasks": proposal.tasks, "epochs": proposal.epochs, "head": proposal.head}
        print(printable_json(found | ({"domains": list(proposal.domains)} if proposal.domains else {}), indent=1))
    else:
        _print(proposal, write)
    finish(left_out)


def _print(proposal: ClassProposal, write: Path | None) -> None:
    counts = sorted(proposal.counts.items(), key=lambda pair: -pair[1])
    rows = [(shorten(name), str(count)) for name, count in counts]
    if len(rows) > SHOWN:
        rows = [*rows[: SHOWN // 2], (f"{len(rows) - SHOWN} more", ""), *rows[-SHOWN // 2 :]]
    print_table(("class", "training examples"), rows)
    domains = f" in the domains {shorten(', '.join(proposal.domains), 100)}" if proposal.domains else ""
    kinds = f"{len(counts)} classes{domains}: {counted(proposal.tasks, 'task')}, {counted(proposal.epochs, 'epoch')}"
    say(f"{counted(sum(proposal.counts.values()), 'example')} of {kinds}, head '{proposal.head}'.")
    say(
        f"{write}: written; `newcomer run {write} --baselines` runs it"
        if write
        else "--write FILE.toml keeps it as a recipe"
    )
