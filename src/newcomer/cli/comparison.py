"""The command that compares all rows of a recipe with the same care."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress

from newcomer.cli.program import Bar, app, console, finish, progress_of, say, stoppable
from newcomer.cli.runs import rich_table
from newcomer.experiments.comparison import Judged
from newcomer.experiments.comparison import compare as compared
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report.comparison import comparison_tables, read_comparison, write_comparison
from newcomer.experiments.report.records import telling
from newcomer.experiments.run import Finished, Score
from newcomer.experiments.workers import Job
from newcomer.training.learner import Step

SEEDS = 3


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="Shipped recipes' names, or TOML files.")],
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs a row; by default the recipe's, but 3 at least.")
    ] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Tries a row in place of the recipe's.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Runs side by side, each in a process of its own.")] = 1,
    rows: Annotated[list[str] | None, typer.Option(help="Only this row; give it again for more.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: learner.rank=4.")] = None,
    out: Annotated[Path, typer.Option(help="Folder; several recipes have one each in it.")] = Path("runs/compared"),
) -> None:
    """Search for every row with as many tries, on exams made of what is taught; then run all seeds and say who is better, and how
    surely. Cut off, the same command goes on where it was."""
    read, left_out = [read_recipe(name, set_ or []) for name in recipes], list[str]()
    for recipe in read:
        folder = out / recipe.name
        runs = range(recipe.seed, recipe.seed + (seeds or max(SEEDS, recipe.seeds)))
        with (
            stoppable("the same command goes on after the last complete stage"),
            _jobs() as shown,
            closing(compared(recipe, folder, runs, budget, processes, rows or ())) as events,
        ):
            for job, event in events:
                shown.follow(job, event)
        with telling([folder]):
            page = write_comparison(folder)
            for table in comparison_tables(read_comparison(folder), most=1):
                console.print(rich_table(table))
        say(f"comparison: {page}")
        left_out += _left_out(folder)
    finish(left_out)


def _left_out(folder: Path) -> list[str]:
    """Rows and runs of which the tables say nothing, and why."""
    told = read_comparison(folder)
    lines = []
    for row, found in told.found.items():
        tries = told.tries(row)
        if tries and all(tried["score"] is None for tried in tries):
            lines.append(f"{folder.name} · {row}: no try has a score; the last: {tries[-1]['failure']}")
        lines += [f"{folder.name} · {row} · seed {seed}: {why}" for seed, why in found.get("failures", {}).items()]
    return lines


class _Jobs:
    """A bar for every run under way, and above them a line for each that is over."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[Path, Bar] = {}

    def follow(self, job: Job, event: Step | Score | Finished | Judged) -> None:
        if job.folder not in self.bars and not isinstance(event, Judged):
            self.bars[job.folder] = Bar(self.progress, job.title)
        match event:
            case Step():
                self.bars[job.folder].follow(event)
            case Score():
                self.bars[job.folder].say(f"{event.exam}: {next(iter(event.values.values())):.3f}")
            case Finished():
                self.bars[job.folder].say(description=f"{event.stage} done")
            case Judged():
                if bar := self.bars.pop(job.folder, None):
                    self.progress.remove_task(bar.task)
                told = event.failure or f"{event.score:.4g}, {event.seconds:.0f} s"
                self.progress.console.print(
                    f"{event.done} of {event.count}: {job.title}: {told}", highlight=False, soft_wrap=True
                )


@contextmanager
def _jobs() -> Iterator[_Jobs]:
    with progress_of(60, BarColumn(12)) as progress:
        yield _Jobs(progress)
