"""The command line: the user's words into recipes, runs and reports. Mistakes are one line and exit code 2."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from newcomer.errors import NewcomerError
from newcomer.recipe import Recipe, read_recipe, shipped
from newcomer.report.page import write_page
from newcomer.report.runs import by_row, find_runs
from newcomer.report.table import Table, result_tables
from newcomer.run import Finished, Score, perform
from newcomer.store.folder import Store
from newcomer.training.learner import Step

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Teach a trained model its newcomers.", rich_markup_mode=None
)
console = Console()

Out = Annotated[Path | None, typer.Option(help="Folder for the runs; by default runs/<recipe>.")]
Seed = Annotated[int | None, typer.Option(help="Seed in place of the recipe's.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs and report.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Watch trained models meet newcomers of both kinds, on data that comes with the library."""
    for name in ("digits", "world"):
        _run(read_recipe(name, seed=seed).rows(), out / name)
    _report([out], out / "report.html")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: learner.rank=4.")] = None,
    seed: Seed = None,
    peer: Annotated[str | None, typer.Option(help="Run this peer of the recipe instead of its learner.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Run all peers of the recipe as well.")] = False,
    out: Out = None,
) -> None:
    """Run a recipe; cut off, the same command goes on after the last complete stage."""
    filled = read_recipe(recipe, set_ or [], seed)
    rows = filled.rows() if peers else [filled.with_peer(peer) if peer else filled]
    folder = out or Path("runs") / filled.name
    _run(rows, folder)
    _print_tables([folder])


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs, at any depth.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """Tables of these runs, here and on one self-contained page with plots."""
    _report(runs, out)


@app.command()
def inspect(store: Annotated[Path, typer.Argument(help="A folder that a learner was saved to.")]) -> None:
    """What a store holds: learner, settings, what it stands on, and its stages."""
    manifest, opened = Store(store).manifest(), Store(store)
    console.print(f"{store}: {manifest.learner}, format {manifest.format}", highlight=False)
    for title, part in (("settings", manifest.settings), ("stands on", manifest.stands_on)):
        console.print(
            f"{title}: " + ", ".join(f"{key} = {_short(value)}" for key, value in part.items()), highlight=False
        )
    table = RichTable("stage", "tensors", "numbers", "bytes", "facts")
    for entry, stage in zip(opened.entries(), manifest.stages, strict=True):
        numbers = sum(tensor.numel() for tensor in entry.tensors.values())
        size = (store / stage["file"]).stat().st_size
        facts = ", ".join(f"{key}: {_short(value)}" for key, value in entry.facts.items())
        table.add_row(entry.name, str(len(entry.tensors)), f"{numbers:,}", f"{size:,}", facts)
    console.print(table)


@app.command()
def recipes() -> None:
    """The recipes that come with the library."""
    for name in shipped():
        recipe = read_recipe(name)
        rows = ", ".join(row.row for row in recipe.rows())
        console.print(f"{name:20} {recipe.title}\n{'':20} {rows}", highlight=False, soft_wrap=True)


def _run(rows: Iterable[Recipe], folder: Path) -> None:
    try:
        for recipe in rows:
            _run_row(recipe, folder / recipe.row / f"seed-{recipe.seed}")
    except KeyboardInterrupt:
        print("newcomer: stopped; the same command goes on after the last complete stage", file=sys.stderr)
        raise typer.Exit(130) from None


def _run_row(recipe: Recipe, where: Path) -> None:
    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[seen]}"), console=console) as progress:
        bar = progress.add_task(f"{recipe.name} · {recipe.row}", total=None, seen="")
        part = ""
        for event in perform(recipe, where):
            if isinstance(event, Step):
                if event.part != part:
                    part = event.part
                    progress.reset(
                        bar, total=event.steps, description=f"{recipe.name} · {recipe.row} · {part}", seen=""
                    )
                seen = ", ".join(f"{name} {value:.3f}" for name, value in event.values.items())
                progress.update(bar, completed=event.step, seen=seen)
            elif isinstance(event, Score):
                progress.update(bar, seen=f"{event.exam}: {next(iter(event.values.values())):.3f}")
            elif isinstance(event, Finished):
                progress.update(bar, description=f"{recipe.name} · {recipe.row} · {event.stage} done")
        progress.update(bar, description=f"{recipe.name} · {recipe.row} · done", seen="")


def _report(folders: list[Path], out: Path) -> None:
    _print_tables(folders)
    write_page(find_runs(folders), out)
    console.print(f"report: {out}", highlight=False)


def _print_tables(folders: list[Path]) -> None:
    for rows in by_row(find_runs(folders)).values():
        for table in result_tables(rows):
            console.print(_rich(table))


def _rich(table: Table) -> RichTable:
    rich = RichTable(title=table.title, caption=table.note)
    for number, head in enumerate(table.head):
        rich.add_column(head, justify="left" if number == 0 else "right")
    for row in table.rows:
        rich.add_row(*row)
    return rich


def _short(value: object, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def main() -> None:
    """The entry point: errors of ours become one line and exit code 2."""
    try:
        app()
    except NewcomerError as error:
        print(f"newcomer: {error}", file=sys.stderr)
        sys.exit(2)
