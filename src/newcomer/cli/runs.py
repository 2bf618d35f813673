"""Commands that run recipes and report on runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as RichTable

from newcomer.cli.program import app, bar, console, say, stoppable
from newcomer.experiments.recipe import Recipe, read_recipe, shipped
from newcomer.experiments.report.page import write_page
from newcomer.experiments.report.records import telling
from newcomer.experiments.report.runs import by_row, find_runs
from newcomer.experiments.report.table import Table, result_tables
from newcomer.experiments.run import Finished, Score, perform
from newcomer.training.learner import Step
from newcomer.training.processes import is_first

Out = Annotated[Path | None, typer.Option(help="Folder for the runs; by default runs/<recipe>.")]
Seed = Annotated[int | None, typer.Option(help="First seed in place of the recipe's.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs and report.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Watch trained models meet newcomers of both kinds, on data that comes with the library."""
    for name in ("digits", "world"):
        _run([row.with_chosen() for row in read_recipe(name, seed=seed).rows()], out / name)
    _report([out], out / "report.html")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: learner.rank=4.")] = None,
    seed: Seed = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs a row, with seeds from the first one on.")] = None,
    peer: Annotated[str | None, typer.Option(help="Run this peer of the recipe instead of its learner.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Run all peers of the recipe as well.")] = False,
    out: Out = None,
) -> None:
    """Run a recipe, with as many seeds as it says, and report on it; cut off, the same command goes on where it was."""
    filled = read_recipe(recipe, [*(set_ or []), *([f"seeds={seeds}"] if seeds else [])], seed)
    rows = filled.rows() if peers else [filled.with_peer(peer) if peer else filled]
    folder = out or Path("runs") / filled.name
    _run([row.with_chosen().with_seed(row.seed + n) for n in range(filled.seeds) for row in rows], folder)
    if is_first():
        _report([folder], folder / "report.html")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs, at any depth.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """Tables of these runs, here and on one self-contained page with plots."""
    _report(runs, out)


@app.command()
def recipes() -> None:
    """The recipes that come with the library."""
    for name in shipped():
        recipe = read_recipe(name)
        rows = ", ".join(row.row for row in recipe.rows())
        say(f"{name:20} {recipe.title}")
        say(f"{'':20} {rows}")


def _run(rows: Iterable[Recipe], folder: Path) -> None:
    with stoppable("the same command goes on after the last complete stage"):
        for recipe in rows:
            _run_row(recipe, folder / recipe.row / f"seed-{recipe.seed}")


def _run_row(recipe: Recipe, where: Path) -> None:
    with bar(f"{recipe.name} · {recipe.row} · seed {recipe.seed}") as shown:
        for event in perform(recipe, where):
            if isinstance(event, Step):
                shown.follow(event)
            elif isinstance(event, Score):
                shown.say(f"{event.exam}: {next(iter(event.values.values())):.3f}")
            elif isinstance(event, Finished):
                shown.say(description=f"{event.stage} done")
        shown.say(description="done")


def _report(folders: list[Path], out: Path) -> None:
    with telling(folders):
        _print_tables(folders)
        write_page(find_runs(folders), out)
    say(f"report: {out}")


def _print_tables(folders: list[Path]) -> None:
    for rows in by_row(find_runs(folders)).values():
        for table in result_tables(rows):
            console.print(rich_table(table))


def rich_table(table: Table) -> RichTable:
    """A table for the console."""
    rich = RichTable(title=table.title, caption=table.note)
    for number, head in enumerate(table.head):
        rich.add_column(head, justify="left" if number == 0 else "right")
    for row in table.rows:
        rich.add_row(*row)
    return rich
