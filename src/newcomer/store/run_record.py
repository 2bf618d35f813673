"""A record that can be told: it begins with the start of a run, and its scores and stages are what tables ask for."""

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from newcomer.errors import StoreError
from newcomer.store.record import Event, read_record

STRICT = ConfigDict(strict=True)


class Recipe(TypedDict):
    """What every filled recipe says of itself; see `newcomer.recipe`."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    name: str
    row: str
    title: str
    seed: int
    family: Literal["classes", "items"]


class Machine(TypedDict):
    """On what it ran."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    processor: str
    threads: int


class Start(TypedDict):
    """The first event."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    place: int
    recipe: Recipe
    stream: dict[str, Any]
    versions: NotRequired[dict[str, str | None]]
    machine: Machine
    commit: str | None


class Score(TypedDict):
    """An exam's result."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    stage: str
    exam: str
    values: dict[str, float]


class Stage(TypedDict):
    """The end of a stage."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    stage: str
    study_seconds: Annotated[float, Field(ge=0)]
    exam_seconds: Annotated[float, Field(ge=0)]
    facts: dict[str, Any]


KINDS: dict[str, TypeAdapter[Any]] = {
    "start": TypeAdapter(Start),
    "score": TypeAdapter(Score),
    "stage": TypeAdapter(Stage),
}


def read_run(path: Path) -> list[Event]:
    """The events of a run's record; none where nothing was written down yet.

    Raises StoreError where the file is missing, does not begin with a start, or an event is not what it is called.
    """
    events = list(read_record(path))
    if events and events[0]["event"] != "start":
        raise StoreError(f"{path}: does not begin with the start of a run; remove the run and start it again")
    for number, event in enumerate(events, 1):
        if (kind := KINDS.get(event["event"])) is not None:
            try:
                kind.validate_python(dict(event))
            except (ValidationError, RecursionError) as error:
                raise StoreError(f"{path}: line {number} cannot be told ({why(error)})") from None
    return events


def why(error: Exception) -> str:
    """Where a check failed, and why, in one line."""
    if not isinstance(error, ValidationError):
        return type(error).__name__
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}"
