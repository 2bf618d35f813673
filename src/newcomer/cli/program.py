"""What all commands share: the program, its console, and a bar that follows a learner's steps."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from newcomer.printable import printable
from newcomer.training.learner import Step
from newcomer.training.processes import is_first

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Teach a trained model its newcomers.", rich_markup_mode=None
)
console = Console(quiet=not is_first(), markup=False, emoji=False, highlight=False)
"""Nothing that is printed is markup: it may be a user's data."""

LEFT_OUT = 3
"""Exit code of a command that did its work but for some of what it was given."""


def say(text: str) -> None:
    """Print one line as it is, however long."""
    console.print(printable(text), soft_wrap=True)


def finish(left_out: Sequence[str]) -> None:
    """Name on stderr all that a command left out, one a line, and end with exit code 3; where nothing was, do nothing."""
    name_left_out(left_out)
    if left_out:
        raise typer.Exit(LEFT_OUT)


def name_left_out(left_out: Sequence[str]) -> None:
    """Name on stderr all that is left out, one a line."""
    for line in left_out:
        print(f"newcomer: left out: {printable(line)}", file=sys.stderr)


class Bar:
    """One line that shows what is under way, how far it is, and what was seen last."""

    def __init__(self, progress: Progress, title: str) -> None:
        self.progress, self.title, self.part = progress, title, ""
        self.task = progress.add_task(title, total=None, seen="")

    def follow(self, step: Step) -> None:
        if step.part != self.part:
            self.part = step.part
            self.progress.reset(self.task, total=step.steps, description=f"{self.title} · {step.part}", seen="")
        seen = ", ".join(f"{name} {value:.3f}" for name, value in step.values.items())
        self.progress.update(self.task, completed=step.step, seen=seen)

    def say(self, seen: str = "", description: str = "") -> None:
        self.progress.update(self.task, seen=seen)
        if description:
            self.progress.update(self.task, description=f"{self.title} · {description}")


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """A bar for as long as something lasts."""
    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[seen]}"), console=console) as progress:
        yield Bar(progress, title)


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Ctrl-C ends the program with one line that says what the user can do now."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"newcomer: stopped; {then}", file=sys.stderr)
        raise typer.Exit(130) from None


def shorten(value: object, limit: int = 60) -> str:
    """As text, cut to one line's length."""
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
