"""What all commands share: the program, its console, and a bar that follows a learner's steps."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperGroup

from newcomer.printable import printable
from newcomer.training.learner import Step
from newcomer.training.processes import is_first

CLOSED = 141
"""Exit code of a command whose output nobody reads any more, as after `| head -1`: 128 and the number of SIGPIPE."""


class Program(TyperGroup):
    """All commands. Ctrl-C in one that has nothing to say about it ends it with one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("newcomer: stopped", file=sys.stderr)
            raise typer.Exit(130) from None


class Console(RichConsole):
    """Nothing that is printed is markup, an emoji code or an escape of the terminal: it may be a user's data."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **form: Any) -> Text:
        """Every text that is printed, alone or in a table's cell, title or caption."""
        return super().render_str(printable(text), **{**form, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


app = typer.Typer(
    cls=Program,
    add_completion=False,
    no_args_is_help=True,
    help="Teach a trained model its newcomers.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
console = Console(quiet=not is_first())

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
        self.progress, self.title, self.part = progress, printable(title), ""
        self.task = progress.add_task(self.title, total=None, seen="")

    def follow(self, step: Step) -> None:
        if step.part != self.part:
            self.part = step.part
            self.progress.reset(
                self.task, total=step.steps, description=f"{self.title} · {printable(step.part)}", seen=""
            )
        seen = ", ".join(f"{name} {value:.3f}" for name, value in step.values.items())
        self.progress.update(self.task, completed=step.step, seen=seen)

    def say(self, seen: str = "", description: str = "") -> None:
        self.progress.update(self.task, seen=printable(seen))
        if description:
            self.progress.update(self.task, description=f"{self.title} · {printable(description)}")


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """A bar for as long as something lasts."""
    with progress_of(44, BarColumn()) as progress:
        yield Bar(progress, title)


def progress_of(width: int, moving: BarColumn) -> Progress:
    """Bars side by side with what each is, how far it is, and what was seen last; none of it is markup."""
    what, seen = (TextColumn(f"{{task.{form}}}", markup=False) for form in (f"description:{width}", "fields[seen]"))
    return Progress(what, moving, MofNCompleteColumn(), TimeElapsedColumn(), seen, console=console)


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
