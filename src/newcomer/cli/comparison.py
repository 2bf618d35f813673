"""`newcomer compare`: all rows of a recipe with the same search budget."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress

from newcomer.cli.program import Bar, Track, app, console, finish, progress_of, say, say_logs, stoppable
from newcomer.cli.runs import rich_table, score_line
from newcomer.errors import SettingError
from newcomer.experiments.comparison import JobResult, Parallel
from newcomer.experiments.comparison import compare as compared
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report.comparison import comparison_tables, read_comparison, write_comparison
from newcomer.experiments.report.record_schema import store_errors
from newcomer.experiments.run import Score, StageEnd
from newcomer.experiments.tracking import StartRun, Tracker, find_tracker, track_recipe
from newcomer.experiments.tracking import track as tracked
from newcomer.experiments.workers import Job
from newcomer.printable import stage_title
from newcomer.training.learner import Step

SEEDS = 3


def _parallel(given: str) -> Parallel:
    if given == "ray":
        return "ray"
    if not given.isdecimal() or not int(given):
        raise SettingError(f"--processes {given}: give how many, from 1 on, or ray")
    return int(given)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="Shipped recipes' names, or TOML files.")],
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Seeds per row; by default the recipe's, at least 3.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Trials per row; by default the recipe's.")
    ] = None,
    processes: Annotated[
        str, typer.Option(metavar="N", help="Number of parallel worker processes, or ray: tasks of a Ray cluster.")
    ] = "1",
    rows: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this row; may be repeated.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as learner.rank=4.")
    ] = None,
    track: Track = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Output folder; several recipes get one folder each in it.")
    ] = Path("runs/compared"),
) -> None:
    """Compare all rows of a recipe at the same search budget. The search uses validation data; then all seeds run, and differences
    are tested. Resumable: the same command continues an interrupted comparison."""
    tracker, parallel = find_tracker(track), _parallel(processes)
    read, left_out = [read_recipe(name, set_ or []) for name in recipes], list[str]()
    for recipe in read:
        folder = out / recipe.name
        start = _starter(tracker, folder)
        runs = range(recipe.seed, recipe.seed + (seeds or max(SEEDS, recipe.seeds)))
        with (
            stoppable("the same command goes on after the last complete stage"),
            _jobs() as shown,
            closing(compared(recipe, folder, runs, budget, parallel, rows or ())) as events,
        ):
            for job, event in tracked(events, start):
                shown.follow(job, event)
        with store_errors([folder]):
            page = write_comparison(folder)
            for table in comparison_tables(read_comparison(folder), max_results=1):
                console.print(rich_table(table))
        say(f"comparison: {page}")
        left_out += _left_out(folder)
    say_logs(track)
    finish(left_out)


def _starter(tracker: StartRun, folder: Path) -> Callable[[Job], Tracker]:
    """Starts a tracker run for a job, named by the recipe and the job's folder."""
    return lambda job: track_recipe(tracker, job.recipe, job.folder.relative_to(folder).as_posix())


def _left_out(folder: Path) -> list[str]:
    """Rows and runs missing in the tables, with the reason."""
    content = read_comparison(folder)
    lines = []
    for row, found in content.rows.items():
        tries = content.trials(row)
        if tries and all(tried["score"] is None for tried in tries):
            lines.append(f"{folder.name} · {row}: no try has a score; the last: {tries[-1]['failure']}")
        lines += [f"{folder.name} · {row} · seed {seed}: {why}" for seed, why in found.get("failures", {}).items()]
    return lines


class _Jobs:
    """A progress bar for every active run, and a line for each finished one."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[Path, Bar] = {}

    def follow(self, job: Job, event: Step | Score | StageEnd | JobResult) -> None:
        if job.folder not in self.bars and not isinstance(event, JobResult):
            self.bars[job.folder] = Bar(self.progress, job.title)
        match event:
            case Step():
                self.bars[job.folder].follow(event)
            case Score():
                self.bars[job.folder].say(score_line(event))
            case StageEnd():
                self.bars[job.folder].say(description=f"{stage_title(event.stage)} done")
            case JobResult():
                if bar := self.bars.pop(job.folder, None):
                    self.progress.remove_task(bar.task)
                content = event.failure or f"{event.score:.4g}, {event.seconds:.0f} s"
                self.progress.console.print(
                    f"{event.done} of {event.count}: {job.title}: {content}", highlight=False, soft_wrap=True
                )


@contextmanager
def _jobs() -> Iterator[_Jobs]:
    with progress_of(60, BarColumn(12)) as progress:
        yield _Jobs(progress)
