"""Commands that run recipes and report on runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as RichTable

from newcomer.cli.program import Track, app, bar, console, finish, say, say_logs, stoppable
from newcomer.errors import LearnerError
from newcomer.experiments.recipe import Recipe, read_recipe, shipped
from newcomer.experiments.report.page import write_page
from newcomer.experiments.report.record_schema import store_errors
from newcomer.experiments.report.runs import by_row, find_runs
from newcomer.experiments.report.table import Table, result_tables
from newcomer.experiments.run import Score, StageEnd, run_recipe
from newcomer.experiments.tracking import NoTracker, StartRun, find_tracker, track_recipe
from newcomer.experiments.tracking import track as tracked
from newcomer.metrics.calibration import worse_than_constant
from newcomer.printable import stage_title
from newcomer.training.launcher import is_first, world
from newcomer.training.learner import Step

Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Output folder; by default runs/RECIPE.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="First seed; by default the recipe's.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Output folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
) -> None:
    """Run both methods and their baselines on embedded data. Writes a report."""
    left_out = list[str]()
    for name in ("digits", "world"):
        left_out += _run([row.with_chosen() for row in read_recipe(name, seed=seed).rows()], out / name)
    _report([out], out / "report.html")
    finish(left_out)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a TOML file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as learner.rank=4.")
    ] = None,
    seed: Seed = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of seeds per row; by default the recipe's.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run this baseline of the recipe instead of its learner.")
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Run all baselines of the recipe as well.")] = False,
    track: Track = None,
    out: Out = None,
) -> None:
    """Run a recipe with all its seeds, and write a report. Resumable: the same command continues an interrupted run. A run that
    diverges is skipped and reported."""
    filled = read_recipe(recipe, [*(set_ or []), *([f"seeds={seeds}"] if seeds else [])], seed)
    rows = filled.rows() if baselines else [filled.with_baseline(baseline) if baseline else filled]
    folder = out or Path("runs") / filled.name
    left_out = _run(
        [row.with_chosen().with_seed(row.seed + n) for n in range(filled.seeds) for row in rows],
        folder,
        find_tracker(track),
    )
    if is_first():
        _report([folder], folder / "report.html")
        say_logs(track)
    finish(left_out)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs, at any depth.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Print tables of runs, and write an HTML page with plots."""
    _report(runs, out)


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    for name in shipped():
        recipe = read_recipe(name)
        rows = ", ".join(row.row for row in recipe.rows())
        say(f"{name:20} {recipe.title}")
        say(f"{'':20} {rows}")


def _run(rows: Sequence[Recipe], folder: Path, tracker: StartRun = NoTracker) -> list[str]:
    """Run these rows; return the errors of failed ones. Raises LearnerError if all failed."""
    left_out = list[str]()
    with stoppable("the same command goes on after the last complete stage"):
        for recipe in rows:
            try:
                _run_row(recipe, folder, f"{recipe.row}/seed-{recipe.seed}", tracker)
            except LearnerError as error:
                left_out.append(f"{recipe.name} · {recipe.row} · seed {recipe.seed}: {error}")
                if len(left_out) == len(rows) or world()[0] > 1:  # other processes may wait for this one
                    raise
    return left_out


def _run_row(recipe: Recipe, folder: Path, name: str, tracker: StartRun) -> None:
    events = ((name, event) for event in run_recipe(recipe, folder / name))
    with bar(f"{recipe.name} · {recipe.row} · seed {recipe.seed}") as shown:
        for _, event in tracked(events, lambda name: track_recipe(tracker, recipe, name)):
            if isinstance(event, Step):
                shown.follow(event)
            elif isinstance(event, Score):
                shown.say(score_line(event))
            elif isinstance(event, StageEnd):
                shown.say(description=f"{stage_title(event.stage)} done")
        shown.say(description="done")


def score_line(score: Score) -> str:
    """The first score, and whether the probabilities are worth nothing."""
    worse = ", log loss worse than a constant's" if worse_than_constant(score.values) else ""
    return f"{stage_title(score.eval_set)}: {next(iter(score.values.values())):.3f}{worse}"


def _report(folders: list[Path], out: Path) -> None:
    with store_errors(folders):
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
