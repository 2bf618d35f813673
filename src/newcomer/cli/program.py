"""The command-line program, its console and its progress bar."""

import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from itertools import takewhile
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from newcomer.cli import importing
from newcomer.cli.commands import COMMANDS, DISTRIBUTED
from newcomer.errors import SettingError
from newcomer.printable import printable, stage_title
from newcomer.training.launcher import is_first, world

if TYPE_CHECKING:
    from newcomer.training.learner import Step

T = TypeVar("T")

Track = Annotated[
    str | None,
    typer.Option("--track", metavar="NAME", help="Log settings and metrics to tensorboard, mlflow, wandb or trackio."),
]
"""The option of every command that trains."""

CLOSED = 141
"""Exit code when standard output is closed, as by `| head -1`: 128 + SIGPIPE."""


class Program(TyperGroup):
    """All commands, loaded on demand. Ctrl-C ends a command with one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        names = {name: TyperCommand(name=name, help=summary) for name, (_, summary) in COMMANDS.items()}
        self.commands = {**names, **self.commands}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of these arguments; imports its module.

        Raises SettingError, in every process, for one that several processes cannot do together.
        """
        name, command, rest = super().resolve_command(ctx, args)
        if world()[0] > 1 and name not in DISTRIBUTED:
            raise SettingError(
                f"`newcomer {name}` runs in one process, and a launcher started {world()[0]}; start it without the launcher "
                f"({', '.join(DISTRIBUTED)} run in several)"
            )
        if "--help" in takewhile(lambda word: word != "--", rest):
            rest = ["--help"]  # never the value of an option, such as a folder's name
        return name, load_command(name) if name and name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("newcomer: stopped", file=sys.stderr)
            raise typer.Exit(130) from None


class Console(RichConsole):
    """Console that prints user data literally: no markup, emoji codes or terminal escapes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **form: Any) -> Text:
        """Called for every text: lines, and a table's cells, title and caption."""
        return super().render_str(printable(text), **{**form, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


app = typer.Typer(
    cls=Program,
    add_completion=False,
    no_args_is_help=True,
    help="Add new classes and new items to trained models.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(version("newcomer"))
        raise typer.Exit


@app.callback()
def _program(
    version_: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Add new classes and new items to trained models."""


def load_command(name: str) -> Any:
    """The command of this name with its parameters; imports its module."""
    with importing():
        import_module(f"newcomer.cli.{COMMANDS[name][0]}")
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.metavar = parameter.name.upper()
            parameter.display_type_rich = lambda ctx: None  # help would show `<list[str]>` beside the name
    return command


console = Console(quiet=not is_first())

SECONDS_BETWEEN_LINES = 30.0
"""Seconds from one line of progress to the next where there is no terminal for a bar."""

LEFT_OUT = 3
"""Exit code of a command that skipped part of its input."""


def say(text: str) -> None:
    """Print one line as it is, however long."""
    console.print(printable(text), soft_wrap=True)


def say_logs(tracker: str | None) -> None:
    """Say where this tracker's logs are; nothing without one."""
    if tracker is not None:
        from newcomer.experiments.tracking import LOGS  # takes seconds to import, and most commands do without

        say(f"logs: {LOGS[tracker]}")


def finish(left_out: Sequence[str]) -> None:
    """List what a command left out on stderr, one per line, and exit with code 3; nothing if the list is empty."""
    name_left_out(left_out)
    if left_out:
        raise typer.Exit(LEFT_OUT)


def name_left_out(left_out: Sequence[str]) -> None:
    """List what is left out on stderr, one per line."""
    for line in left_out:
        print(f"newcomer: left out: {printable(line)}", file=sys.stderr)


class Bar:
    """Progress bar of one job: current part, steps done, last values. Without a terminal, a line on stderr from time to time."""

    def __init__(self, progress: Progress, title: str) -> None:
        self.progress, self.title, self.part = progress, printable(title), ""
        self.task = progress.add_task(self.title, total=None, values="")
        self.printed = monotonic()

    def follow(self, step: "Step") -> None:
        if step.part != self.part:
            self.part = step.part
            description = f"{self.title} · {printable(stage_title(step.part))}"
            self.progress.reset(self.task, total=step.steps, description=description, values="")
        values = ", ".join(f"{name} {value:.3f}" for name, value in step.values.items())
        self.progress.update(self.task, completed=step.step, values=values)
        if not (console.is_terminal or console.quiet) and monotonic() - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = monotonic()
            line = f"{self.title} · {printable(stage_title(self.part))}: {step.step:,} of {step.steps:,} {values}"
            print(line.rstrip(), file=sys.stderr, flush=True)

    def say(self, values: str = "", description: str = "") -> None:
        self.progress.update(self.task, values=printable(values))
        if description:
            self.progress.update(self.task, description=f"{self.title} · {printable(description)}")


@contextmanager
def bar(title: str, *, stays: bool = True) -> Iterator[Bar]:
    """Progress bar; removed at the end unless it `stays`, and if there was no step."""
    with progress_of(44, BarColumn()) as progress:
        shown = Bar(progress, title)
        try:
            yield shown
        finally:
            progress.live.transient = not (stays and shown.part)


def with_progress(title: str, work: "Generator[Step, None, T]") -> T:
    """What a generator of steps returns, shown by a progress bar that is removed at the end."""
    with bar(title, stays=False) as shown:
        while True:
            try:
                shown.follow(next(work))
            except StopIteration as end:
                found: T = end.value
                return found


def progress_of(width: int, moving: BarColumn) -> Progress:
    """Progress display for several bars; no text is read as markup."""
    title, values = (
        TextColumn(f"{{task.{form}}}", markup=False) for form in (f"description:{width}", "fields[values]")
    )
    return Progress(title, moving, MofNCompleteColumn(), TimeElapsedColumn(), values, console=console)


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Within, Ctrl-C ends the program with one line; `then` says how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"newcomer: stopped; {then}", file=sys.stderr)
        raise typer.Exit(130) from None


def shorten(value: object, limit: int = 60) -> str:
    """Text, truncated to `limit` characters."""
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
